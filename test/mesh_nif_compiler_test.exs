defmodule Mix.Tasks.Compile.MeshNifTest do
  # A project that is built in a Mix of its own, with a cargo that only writes down how it was
  # called: what is tested is when it is called, and what becomes of what it built.
  use ExUnit.Case, async: true

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
  cat native/mesh_nif/src/lib.rs > target/release/libmesh_nif.so
  echo '{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"mesh_core"},"filenames":["/nowhere.rlib"]}'
  echo "{\\"reason\\":\\"compiler-artifact\\",\\"target\\":{\\"kind\\":[\\"cdylib\\"],\\"name\\":\\"mesh_nif\\"},\\"filenames\\":[\\"$PWD/target/release/libmesh_nif.so\\"]}"
  """

  setup do
    dir = Path.join(System.tmp_dir!(), "mesh-nif-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(dir) end)

    for {path, content} <- %{
          "mix.exs" => @project,
          "cargo" => @cargo,
          "Cargo.toml" => "[workspace]",
          "native/mesh_nif/Cargo.toml" => "[package]",
          "native/mesh_nif/src/lib.rs" => "first"
        } do
      write(dir, path, content)
    end

    File.chmod!(Path.join(dir, "cargo"), 0o755)
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

  defp library(dir, environment \\ "dev") do
    File.read!(Path.join(dir, "_build/#{environment}/lib/fake/priv/native/mesh_nif.so"))
  end

  test "builds once for all environments, and again when a source changes or is new", %{dir: dir} do
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

  test "a cargo that is too old is one sentence", %{dir: dir} do
    assert {output, 1} = compile(dir, [{"FAKE_VERSION", "0.66.0"}])
    assert output =~ "finds cargo 0.66.0"
    assert output =~ "Rust 1.91.0 or later is required"
    assert calls(dir) == []
  end

  test "no cargo at all is one sentence", %{dir: dir} do
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

  test "variables that are empty are as good as none", %{dir: dir} do
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

  test "a CARGO that cannot be run is one sentence", %{dir: dir} do
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
end
