defmodule Mix.Tasks.Compile.MeshNifTest do
  # A project that is built in a Mix of its own, with a cargo that only writes down how it was
  # called: what is tested is when it is called, and what becomes of what it built.
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.NifBuild.{Info, Sources, Target}

  # The task comes from outside the project, and Mix 1.15 and later leave only its dependencies in the
  # code path.
  @project """
  defmodule Fake.MixProject do
    use Mix.Project

    def project do
      [
        app: :fake,
        version: "0.1.0",
        compilers: Mix.compilers() ++ [:mesh_nif],
        prune_code_paths: false
      ]
    end
  end
  """

  @cargo """
  #!/bin/sh
  if [ "$1" = --version ]; then echo "cargo $FAKE_VERSION (0000000 2025-01-01)"; exit 0; fi
  echo "$*" >> calls
  echo "$CARGO_TARGET_DIR" > target_dir
  mkdir -p target/release
  cat native/mesh_nif/src/lib.rs > target/release/libmesh_nif.$$
  mv target/release/libmesh_nif.$$ target/release/libmesh_nif.so
  echo '{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"mesh_core"},"filenames":["/nowhere.rlib"]}'
  echo "{\\"reason\\":\\"compiler-artifact\\",\\"target\\":{\\"kind\\":[\\"cdylib\\"],\\"name\\":\\"mesh_nif\\"},\\"filenames\\":[\\"$PWD/target/release/libmesh_nif.so\\"]}"
  """

  @rustc """
  #!/bin/sh
  echo "rustc $FAKE_VERSION (0000000 2025-01-01)"
  """

  setup do
    dir = Path.join(System.tmp_dir!(), "mesh-nif-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(dir) end)

    for {path, content} <- %{
          "mix.exs" => @project,
          "cargo" => @cargo,
          "rustc" => @rustc,
          "Cargo.toml" => "[workspace]",
          "native/mesh_nif/Cargo.toml" => "[package]",
          "native/mesh_nif/src/lib.rs" => "first"
        } do
      write(dir, path, content)
    end

    for program <- ~w(cargo rustc), do: File.chmod!(Path.join(dir, program), 0o755)
    %{dir: dir}
  end

  defp write(dir, path, content) do
    path = Path.join(dir, path)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, content)
  end

  defp compile(dir, environment \\ []) do
    # The task comes from the code path, as it does from the package that it belongs to.
    defaults = [
      {"CARGO", Path.join(dir, "cargo")},
      {"CARGO_TARGET_DIR", nil},
      {"CARGO_BUILD_TARGET", nil},
      {"MESH_BUILD", nil},
      {"RUSTC", nil},
      {"FAKE_VERSION", "1.91.0"},
      {"MIX_ENV", "dev"},
      {"ERL_FLAGS", "-pa #{Application.app_dir(:ex_service_mesh_router, "ebin")}"}
    ]

    System.cmd("mix", ["compile"],
      cd: dir,
      env: defaults ++ environment,
      stderr_to_stdout: true
    )
  end

  defp calls(dir) do
    case File.read(Path.join(dir, "calls")) do
      {:ok, calls} -> String.split(calls, "\n", trim: true)
      {:error, _} -> []
    end
  end

  # What scripts/precompile would have made for the running VM, but for `changes`.
  defp precompiled(dir, changes \\ %{}) do
    target = Target.running()
    content = "precompiled"

    info =
      %{
        "target" => target.triple,
        "nif" => "2.15",
        "sources" => Sources.fingerprint(dir),
        "rustc" => "rustc 1.91.0",
        "md5" => Info.md5(content)
      }
      |> Map.merge(if target.glibc, do: %{"glibc" => "2.17"}, else: %{})
      |> Map.merge(changes)

    folder = "priv/native/#{info["target"]}-#{info["nif"]}"
    write(dir, "#{folder}/mesh_nif.so", content)
    write(dir, "#{folder}/mesh_nif.info", Info.format(info))
    folder
  end

  defp library(dir, environment \\ "dev") do
    File.read!(Path.join(dir, "_build/#{environment}/lib/fake/priv/native/mesh_nif.so"))
  end

  test "builds once for all environments, and again when a source changes or is added", %{
    dir: dir
  } do
    assert {_, 0} = compile(dir)
    assert [call] = calls(dir)
    assert call =~ "build --release --locked -p mesh_nif"
    assert library(dir) == "first"

    assert {output, 0} = compile(dir)
    refute output =~ "cargo"
    assert {_, 0} = compile(dir, [{"MIX_ENV", "prod"}])
    assert length(calls(dir)) == 1
    assert library(dir, "prod") == "first"

    # A VM that has the library open keeps the one it has.
    {:ok, open} = File.open(Path.join(dir, "priv/native/mesh_nif.so"))
    write(dir, "native/mesh_nif/src/lib.rs", "second")
    assert {_, 0} = compile(dir)
    assert library(dir) == "second"
    assert IO.binread(open, :eof) == "first"

    write(dir, "native/mesh_nif/src/new.rs", "")
    assert {_, 0} = compile(dir)
    assert length(calls(dir)) == 3

    write(dir, "Cargo.toml", "[workspace] # changed")
    assert {_, 0} = compile(dir)
    assert length(calls(dir)) == 4
  end

  test "builds again when the library is gone", %{dir: dir} do
    assert {_, 0} = compile(dir)
    File.rm!(Path.join(dir, "priv/native/mesh_nif.so"))
    assert {_, 0} = compile(dir)
    assert length(calls(dir)) == 2
  end

  test "an old cargo gives one sentence", %{dir: dir} do
    assert {output, 1} = compile(dir, [{"FAKE_VERSION", "0.66.0"}])
    assert output =~ "finds cargo 0.66.0"
    assert output =~ "Rust 1.91.0 or later is required"
    assert calls(dir) == []
  end

  test "a missing cargo gives one sentence", %{dir: dir} do
    # Cargo may stand beside mix, and in more than one directory.
    bin = Path.join(dir, "bin")
    File.mkdir_p!(bin)

    for directory <- "PATH" |> System.get_env() |> String.split(":"),
        path <- Path.wildcard(Path.join(directory, "*")),
        name = Path.basename(path),
        name != "cargo",
        do: File.ln_s(path, Path.join(bin, name))

    for unset <- [nil, ""] do
      assert {output, 1} = compile(dir, [{"CARGO", unset}, {"HOME", dir}, {"PATH", bin}])
      assert output =~ "ex_service_mesh_router needs cargo to build its data plane. Rust 1.91.0"
    end
  end

  test "empty variables count as unset", %{dir: dir} do
    path = Path.join(dir, "bin") <> ":" <> System.get_env("PATH")
    File.mkdir_p!(Path.join(dir, "bin"))
    File.rename!(Path.join(dir, "cargo"), Path.join(dir, "bin/cargo"))
    environment = [{"CARGO", ""}, {"CARGO_TARGET_DIR", ""}, {"PATH", path}]
    assert {_, 0} = compile(dir, environment)
    assert [_] = calls(dir)
    assert library(dir) == "first"

    assert dir |> Path.join("target_dir") |> File.read!() |> String.trim() |> Path.basename() ==
             "target"
  end

  test "a CARGO that cannot be run gives one sentence", %{dir: dir} do
    assert {output, 1} = compile(dir, [{"CARGO", "/nowhere/cargo"}])

    assert output =~
             "ex_service_mesh_router cannot run /nowhere/cargo: no such file or directory."

    assert output =~ "Rust 1.91.0 or later is required"
  end

  test "a build that fails stops the compilation", %{dir: dir} do
    write(dir, "cargo", String.replace(@cargo, "echo \"$*\"", "exit 101; echo"))
    assert {output, 1} = compile(dir)
    assert output =~ "cargo could not build the data plane of ex_service_mesh_router, see above"
  end

  test "builds again with another compiler or target, and not without a compiler", %{dir: dir} do
    assert {_, 0} = compile(dir)
    assert {_, 0} = compile(dir, [{"FAKE_VERSION", "1.92.0"}])
    assert length(calls(dir)) == 2

    # A later stage of an image, or an editor with another PATH, takes what is there.
    assert {_, 0} = compile(dir, [{"RUSTC", "/nowhere/rustc"}])
    assert {_, 0} = compile(dir, [{"FAKE_VERSION", "1.63.0"}])
    assert length(calls(dir)) == 2

    cross = [{"FAKE_VERSION", "1.92.0"}, {"CARGO_BUILD_TARGET", "riscv64gc-unknown-linux-gnu"}]
    assert {_, 0} = compile(dir, cross)
    assert {_, 0} = compile(dir, cross)
    assert length(calls(dir)) == 3
  end

  test "builds again when the library was replaced", %{dir: dir} do
    assert {_, 0} = compile(dir)
    write(dir, "priv/native/mesh_nif.so", "half")
    assert {_, 0} = compile(dir)
    assert library(dir) == "first"
    assert length(calls(dir)) == 2
  end

  test "replaces the library atomically", %{dir: dir} do
    size = 20_000_000
    path = Path.join(dir, "priv/native/mesh_nif.so")
    write(dir, "native/mesh_nif/src/lib.rs", String.duplicate("a", size))
    assert {_, 0} = compile(dir)
    write(dir, "native/mesh_nif/src/lib.rs", String.duplicate("b", size))

    build = Task.async(fn -> compile(dir) end)
    seen = watch(path, build, MapSet.new())
    assert {_, 0} = Task.await(build)
    assert seen == MapSet.new([{?a, size}, {?b, size}])
    assert [_library, _info] = path |> Path.dirname() |> File.ls!()
  end

  # Opens the file again and again, as VMs do that start meanwhile.
  defp watch(path, build, seen) do
    now =
      case File.read(path) do
        {:ok, <<first, _::binary>> = content} -> {first, byte_size(content)}
        other -> other
      end

    case Task.yield(build, 0) do
      nil ->
        watch(path, build, MapSet.put(seen, now))

      {:ok, result} ->
        # For the caller to await.
        send(self(), {build.ref, result})
        seen
    end
  end

  test "two builds at the same time do no harm", %{dir: dir} do
    write(dir, "native/mesh_nif/src/lib.rs", String.duplicate("a", 5_000_000))

    for environment <- ~w(dev test prod) do
      Task.async(fn -> compile(dir, [{"MIX_ENV", environment}]) end)
    end
    |> Task.await_many(60_000)
    |> Enum.each(&assert {_, 0} = &1)

    for environment <- ~w(dev prod) do
      before = length(calls(dir))
      assert {_, 0} = compile(dir, [{"MIX_ENV", environment}])
      assert length(calls(dir)) == before
      assert byte_size(library(dir, environment)) == 5_000_000
    end
  end

  describe "a precompiled library" do
    test "is used without cargo if it fits", %{dir: dir} do
      folder = precompiled(dir)
      assert {output, 0} = compile(dir, [{"CARGO", "/nowhere/cargo"}])
      assert output =~ "Using the precompiled data plane #{folder}"
      assert library(dir) == "precompiled"

      assert {output, 0} = compile(dir, [{"CARGO", "/nowhere/cargo"}])
      refute output =~ "precompiled"
      assert calls(dir) == []
    end

    test "is not used with MESH_BUILD=1", %{dir: dir} do
      precompiled(dir)
      assert {_, 0} = compile(dir, [{"MESH_BUILD", "1"}])
      assert library(dir) == "first"
      assert {_, 0} = compile(dir, [{"MESH_BUILD", "1"}])
      assert length(calls(dir)) == 1

      assert {_, 0} = compile(dir, [{"MESH_BUILD", ""}])
      assert library(dir) == "precompiled"
      assert {_, 0} = compile(dir, [{"MESH_BUILD", "1"}, {"RUSTC", "/nowhere/rustc"}])
      assert library(dir) == "first"
    end

    test "MESH_BUILD takes 0 and 1", %{dir: dir} do
      assert {output, 1} = compile(dir, [{"MESH_BUILD", "yes"}])
      assert output =~ ~s(MESH_BUILD is "yes", expected 1 (build with cargo\) or 0)
    end

    test "is not used if a part does not fit, and one sentence says so", %{dir: dir} do
      target = Target.running()

      misfits = [
        {%{"sources" => "0"}, "it was built from other Rust sources than these."},
        {%{"nif" => "2.99"}, "it needs NIF version 2.99, and this Erlang has #{target.nif}."},
        {%{"nif" => "3.0"}, "it needs NIF version 3.0, and this Erlang has #{target.nif}."},
        {%{"md5" => "0"}, "it is not the file that its mesh_nif.info describes."}
      ]

      glibc =
        if target.glibc do
          [
            {%{"glibc" => "9.9"},
             "it needs glibc 9.9 or later, and this system has #{target.glibc}."}
          ]
        else
          []
        end

      for {changes, sentence} <- misfits ++ glibc do
        folder = precompiled(dir, changes)
        assert {output, 0} = compile(dir, [])
        assert output =~ "The precompiled library #{folder}/mesh_nif.so does not fit: #{sentence}"
        assert library(dir) == "first"

        File.rm_rf!(Path.join(dir, folder))
        File.rm!(Path.join(dir, "priv/native/mesh_nif.so"))
      end
    end

    test "of another architecture is not used, and without cargo one sentence says so", %{
      dir: dir
    } do
      precompiled(dir, %{"target" => "sparc64-unknown-linux-gnu"})
      here = Target.running().triple

      expected =
        "No precompiled library fits: this system is #{here}, " <>
          "and they are for sparc64-unknown-linux-gnu."

      assert {output, 1} = compile(dir, [{"FAKE_VERSION", "1.63.0"}])
      assert output =~ expected
      assert output =~ "ex_service_mesh_router finds cargo 1.63.0"

      assert {output, 0} = compile(dir)
      assert output =~ expected
      assert library(dir) == "first"
    end

    test "that is newer replaces the installed library", %{dir: dir} do
      assert {_, 0} = compile(dir)
      precompiled(dir)
      precompiled(dir, %{"nif" => "2.14", "md5" => "0"})
      assert {_, 0} = compile(dir)
      assert library(dir) == "precompiled"
    end

    test "without its info file is ignored", %{dir: dir} do
      folder = precompiled(dir)
      File.rm!(Path.join(dir, "#{folder}/mesh_nif.info"))
      assert {output, 0} = compile(dir)
      assert output =~ "they are for #{folder}/mesh_nif.so"
      assert library(dir) == "first"
    end
  end
end
