defmodule Mix.Tasks.Compile.MeshNif do
  @moduledoc """
  Installs the library of the data plane in `priv/native`: a precompiled one that fits, or one that
  cargo builds from `native/`.

  It runs as the last compiler of this package, also if the package is a path, git or Hex dependency.

  A precompiled library (`priv/native/TARGET-NIFVERSION/`, made by `scripts/precompile`) fits if its
  `mesh_nif.info` matches: the target of the running VM, the version of the C library or an older one,
  the NIF version, and the Rust sources. Otherwise the output has the reason, and cargo builds the
  library, always as a release build, because a debug build is many times slower.

  The task calls cargo if a Rust source, a manifest, the lock file, the compiler or the target has
  changed, or if the library is missing. Otherwise it only reads those files and asks the compiler for
  its version. The library is in the `priv` of the sources and the artefacts in their `target`; all
  `MIX_ENV`s share both, so Rust is compiled once.

  Environment variables (an empty one counts as unset):

    * `MESH_BUILD` - `1` builds with cargo even if a precompiled library fits
    * `CARGO` - path of cargo
    * `CARGO_TARGET_DIR` - directory of the artefacts
    * `CARGO_BUILD_TARGET` - builds with cargo for that target
  """

  use Mix.Task.Compiler

  alias ExServiceMeshRouter.NifBuild.{Cargo, Installed, Precompiled, Sources, Target}

  @impl true
  def run(argv) do
    choice = choice(Sources.fingerprint())

    status =
      if "--force" in argv or not current?(choice, Installed.info()) do
        install(choice)
        :ok
      else
        :noop
      end

    Installed.expose()
    {status, []}
  end

  @impl true
  def clean, do: Installed.remove()

  defp choice(sources) do
    target = Target.running()

    with false <- build?(),
         {:ok, library, info} <- Precompiled.find(target, sources) do
      {:precompiled, library, info}
    else
      true -> {:cargo, cargo_info(target, sources), nil}
      {:none, why} -> {:cargo, cargo_info(target, sources), why}
    end
  end

  defp cargo_info(target, sources) do
    info = %{
      "from" => "cargo",
      "sources" => sources,
      "target" => Cargo.target() || target.triple
    }

    if compiler = Cargo.compiler(), do: Map.put(info, "rustc", compiler), else: info
  end

  defp build? do
    case System.get_env("MESH_BUILD") do
      "1" ->
        true

      unset when unset in [nil, "", "0"] ->
        Cargo.target() != nil

      other ->
        Mix.raise(
          "MESH_BUILD is #{inspect(other)}, expected 1 (build with cargo) or 0 (the default)"
        )
    end
  end

  defp current?(_choice, nil), do: false
  defp current?({:precompiled, _library, info}, installed), do: installed == info

  # Without a compiler, as in a later stage of an image, info has no `rustc`, and any built library fits.
  defp current?({:cargo, info, _why}, installed), do: Map.merge(installed, info) == installed

  defp install({:precompiled, library, info}) do
    Mix.shell().info("Using the precompiled data plane #{Path.dirname(library)}")
    Installed.put!(library, info)
  end

  defp install({:cargo, info, why}) do
    if why, do: Mix.shell().info(why)
    Installed.put!(Cargo.build!(), info)
  end
end
