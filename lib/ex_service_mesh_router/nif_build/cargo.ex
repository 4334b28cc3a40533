defmodule ExServiceMeshRouter.NifBuild.Cargo do
  @moduledoc false
  # Finds cargo and rustc and builds the library with them.

  alias ExServiceMeshRouter.Json

  @minimum "1.91.0"

  @doc "Returns the version of the compiler that cargo would use, or nil if it is missing or too old."
  def compiler do
    with cargo when cargo != nil <- cargo(),
         rustc when rustc != nil <- rustc(cargo),
         {output, 0} <- output(rustc, ["--version", "--verbose"]),
         [_, number] <- Regex.run(~r/^rustc (\d+\.\d+\.\d+)/, output),
         true <- Version.compare(number, @minimum) != :lt do
      # One line: `rustc 1.95.0 (5980761 2026-04-14), host: x86_64-unknown-linux-gnu, ...`
      output |> String.split("\n", trim: true) |> Enum.join(", ")
    else
      _none -> nil
    end
  end

  @doc "Builds the library and returns its path."
  def build! do
    cargo = cargo!()
    Mix.shell().info("Building the data plane of ex_service_mesh_router with cargo (release)")

    arguments = ~w(build --release --locked -p mesh_nif --message-format=json-render-diagnostics)

    # Diagnostics go to stderr and thus to the terminal; stdout has one JSON object per line.
    case System.cmd(cargo, arguments, env: [{"CARGO_TARGET_DIR", target_dir()}]) do
      {output, 0} ->
        artefact(output) ||
          Mix.raise("cargo built mesh_nif, but its output has no library: #{output}")

      {_output, _status} ->
        Mix.raise("cargo could not build the data plane of ex_service_mesh_router, see above")
    end
  end

  defp artefact(output) do
    Enum.find_value(String.split(output, "\n"), fn line ->
      with {:ok, %{"reason" => "compiler-artifact", "target" => %{"kind" => ["cdylib"]}} = built} <-
             Json.decode(line),
           do: Enum.find(built["filenames"], &(Path.extname(&1) in [".so", ".dylib"])),
           else: (_ -> nil)
    end)
  end

  defp cargo! do
    cargo = cargo()

    unless cargo do
      Mix.raise("ex_service_mesh_router needs cargo to build its data plane. " <> advice())
    end

    with {output, 0} <- output(cargo, ["--version"]),
         [_, number] <- Regex.run(~r/^cargo (\d+\.\d+\.\d+)/, output),
         true <- Version.compare(number, @minimum) != :lt do
      cargo
    else
      {output, _status} ->
        Mix.raise("ex_service_mesh_router cannot run #{cargo}: #{output}. " <> advice())

      _too_old ->
        {output, 0} = output(cargo, ["--version"])
        Mix.raise("ex_service_mesh_router finds #{output} (#{cargo}). " <> advice())
    end
  end

  defp cargo, do: variable("CARGO") || System.find_executable("cargo") || home_cargo()

  # Editors and services often start Mix without the PATH of a login shell.
  defp home_cargo do
    path = Path.expand("~/.cargo/bin/cargo")
    if File.regular?(path), do: path
  end

  defp rustc(cargo) do
    beside = Path.join(Path.dirname(cargo), "rustc")
    found = if File.regular?(beside), do: beside, else: System.find_executable("rustc")
    variable("RUSTC") || found
  end

  defp output(program, arguments) do
    {output, status} = System.cmd(program, arguments, stderr_to_stdout: true)
    {String.trim(output), status}
  rescue
    error in ErlangError -> {List.to_string(:file.format_error(error.original)), 1}
  end

  defp advice do
    "Rust #{@minimum} or later is required: from rustup, or on Debian 12 and 13 " <>
      "by `apt-get install cargo-web`."
  end

  defp target_dir, do: Path.expand(variable("CARGO_TARGET_DIR") || "target")

  @doc "Returns the configured build target of cargo, or nil for the machine's own."
  def target, do: variable("CARGO_BUILD_TARGET")

  # Dockerfiles and CI systems often pass unset variables on as empty ones.
  defp variable(name) do
    case System.get_env(name) do
      "" -> nil
      value -> value
    end
  end
end
