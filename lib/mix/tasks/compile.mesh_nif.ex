defmodule Mix.Tasks.Compile.MeshNif do
  @moduledoc """
  Builds the data plane (`native/`) with cargo and puts it into `priv/native`.

  Runs as the last compiler of this package, also when the package is a path or git dependency.
  Always a release build: a debug build of the data plane is many times slower and would be the
  first thing anybody measures.

  Cargo is called when a Rust source, a manifest or the lock file has changed, was added or
  removed, or when the library is missing; otherwise a run costs reading those files. The library
  lies in the source's own `priv`, the artefacts in its `target`, both shared by all `MIX_ENV`s, so
  that `dev`, `test` and `prod` compile Rust once.

  Two environment variables are read: `CARGO`, another cargo, and `CARGO_TARGET_DIR`, another place
  for the artefacts. Empty is the same as unset.
  """

  use Mix.Task.Compiler

  @library "priv/native/mesh_nif.so"
  # Beside the library, for it is the library that it describes.
  @record "priv/native/mesh_nif.fingerprint"
  @sources ~w(Cargo.toml Cargo.lock rust-toolchain rust-toolchain.toml .cargo/config.toml
              native/mesh_*/Cargo.toml native/mesh_*/build.rs native/mesh_*/src/**/*)
  @minimum "1.91.0"

  @impl true
  def run(argv) do
    fingerprint = fingerprint()

    if "--force" in argv or not File.exists?(@library) or recorded() != fingerprint do
      build!() |> install!()
      File.write!(@record, fingerprint)
      expose_priv()
      {:ok, []}
    else
      expose_priv()
      {:noop, []}
    end
  end

  @impl true
  def clean do
    File.rm(@library)
    File.rm(@record)
    :ok
  end

  # Contents, not times: switching branches back and forth rebuilds nothing.
  defp fingerprint do
    files =
      for pattern <- @sources,
          path <- Path.wildcard(pattern, match_dot: true),
          File.regular?(path),
          do: [path, 0, File.read!(path)]

    files |> Enum.sort() |> :erlang.md5() |> Base.encode16(case: :lower)
  end

  defp build! do
    cargo = cargo!()
    Mix.shell().info("Building the data plane of ex_service_mesh_router with cargo (release)")

    arguments = ~w(build --release --locked -p mesh_nif --message-format=json-render-diagnostics)

    # Diagnostics go to stderr, and so to the terminal; stdout has one JSON object a line.
    case System.cmd(cargo, arguments, env: [{"CARGO_TARGET_DIR", target_dir()}]) do
      {output, 0} ->
        artefact(output) || Mix.raise("cargo built mesh_nif, but names no library: #{output}")

      {_output, _status} ->
        Mix.raise("cargo could not build the data plane of ex_service_mesh_router, see above")
    end
  end

  # No JSON library is to be had here, and one member of one line is all that is wanted.
  defp artefact(output) do
    Enum.find_value(String.split(output, "\n"), fn line ->
      if line =~ ~r/"reason":"compiler-artifact"/ and line =~ ~r/"kind":\["cdylib"\]/ do
        case Regex.run(~r/"filenames":\["((?:[^"\\]|\\.)+\.(?:so|dylib))"/, line) do
          [_, path] -> String.replace(path, ~r/\\(.)/, "\\1")
          nil -> nil
        end
      end
    end)
  end

  # A running VM may have the old file mapped. Writing into it would change code under its feet;
  # so the old one is removed (whoever has it open keeps it) and a new one takes its name.
  defp install!(artefact) do
    File.mkdir_p!(Path.dirname(@library))
    File.rm(@library)
    File.cp!(artefact, @library)
  end

  # Before the first build there was no priv/ that Mix could have linked into _build.
  defp expose_priv do
    unless File.exists?(Path.join(Mix.Project.app_path(), @library)) do
      Mix.Project.build_structure()
    end
  end

  defp cargo! do
    cargo = variable("CARGO") || System.find_executable("cargo") || home_cargo()

    unless cargo do
      Mix.raise("ex_service_mesh_router needs cargo to build its data plane. " <> advice())
    end

    with {output, 0} <- version_output(cargo),
         [_, number] <- Regex.run(~r/^cargo (\d+\.\d+\.\d+)/, output),
         true <- Version.compare(number, @minimum) != :lt do
      cargo
    else
      {output, _status} ->
        Mix.raise("ex_service_mesh_router cannot run #{cargo}: #{output}. " <> advice())

      _too_old ->
        {output, 0} = version_output(cargo)
        Mix.raise("ex_service_mesh_router finds #{String.trim(output)} (#{cargo}). " <> advice())
    end
  end

  # Editors and services often start Mix without the PATH of a login shell.
  defp home_cargo do
    path = Path.expand("~/.cargo/bin/cargo")
    if File.regular?(path), do: path
  end

  defp version_output(cargo) do
    {output, status} = System.cmd(cargo, ["--version"], stderr_to_stdout: true)
    {String.trim(output), status}
  rescue
    error in ErlangError -> {List.to_string(:file.format_error(error.original)), 1}
  end

  defp advice do
    "Rust #{@minimum} or later is required: from rustup, or on Debian 12 " <>
      "by `apt-get install cargo-web`."
  end

  defp recorded do
    case File.read(@record) do
      {:ok, fingerprint} -> fingerprint
      {:error, _} -> nil
    end
  end

  defp target_dir, do: Path.expand(variable("CARGO_TARGET_DIR") || "target")

  # As the shell's ${NAME:-default}; a Dockerfile or a CI often passes on what it has not been given.
  defp variable(name) do
    case System.get_env(name) do
      "" -> nil
      value -> value
    end
  end
end
