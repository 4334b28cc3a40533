defmodule ExServiceMeshRouter.NifBuild.TargetTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.NifBuild.Target

  test "system names of architectures become Rust's names" do
    for {architecture, triple} <- %{
          "x86_64-pc-linux-gnu" => "x86_64-unknown-linux-gnu",
          "x86_64-redhat-linux-gnu" => "x86_64-unknown-linux-gnu",
          "x86_64-suse-linux" => "x86_64-unknown-linux-gnu",
          "x86_64-alpine-linux-musl" => "x86_64-unknown-linux-musl",
          "aarch64-linux-gnu" => "aarch64-unknown-linux-gnu",
          "aarch64-unknown-linux-gnu" => "aarch64-unknown-linux-gnu",
          "armv7l-unknown-linux-gnueabihf" => "armv7-unknown-linux-gnueabihf",
          "riscv64-unknown-linux-gnu" => "riscv64gc-unknown-linux-gnu",
          "aarch64-apple-darwin23.2.0" => "aarch64-apple-darwin",
          "arm64-apple-darwin" => "aarch64-apple-darwin",
          "x86_64-unknown-freebsd14.0" => "x86_64-unknown-freebsd14.0"
        } do
      assert Target.triple(architecture) == triple
    end
  end

  test "the loaded C library decides, not the one that Erlang was built for" do
    musl = "7f0000000000-7f0000001000 r--p 00000000 08:01 1    /lib/ld-musl-x86_64.so.1\n"

    new =
      "7f0000000000-7f0000001000 r--p 00000000 08:01 1    /usr/lib/x86_64-linux-gnu/libc.so.6\n"

    old = "7f0000000000-7f0000001000 r--p 00000000 08:01 1    /lib64/libc-2.31.so\n"

    assert {:musl, "/lib/ld-musl-x86_64.so.1"} = Target.libc(musl)
    assert {:glibc, "/usr/lib/x86_64-linux-gnu/libc.so.6"} = Target.libc(new)
    assert {:glibc, "/lib64/libc-2.31.so"} = Target.libc(old)
    assert Target.libc("7f0000000000-7f0000001000 r--p 00000000 08:01 1  /lib/libcap.so.2") == nil

    assert Target.triple("x86_64-pc-linux-gnu", Target.libc(musl)) == "x86_64-unknown-linux-musl"
    assert Target.triple("x86_64-pc-linux-musl", Target.libc(new)) == "x86_64-unknown-linux-gnu"
  end

  test "detects the running VM" do
    target = Target.running()

    # Where the compiler is, it names the same target.
    with rustc when rustc != nil <- System.find_executable("rustc"),
         {output, 0} <- System.cmd(rustc, ["-vV"]) do
      assert output =~ "host: #{target.triple}\n"
    end

    with getconf when getconf != nil <- System.find_executable("getconf"),
         {"glibc " <> version, 0} <- System.cmd(getconf, ["GNU_LIBC_VERSION"]) do
      assert target.glibc == String.trim(version)
    end
  end
end
