defmodule Mix.Tasks.Compile.MeshNif do
  @moduledoc """
  Puts the library of the data plane into `priv/native`: one that was built before, where it fits,
  or one that cargo builds from `native/`.

  Runs as the last compiler of this package, also when the package is a path, git or Hex dependency.

  A precompiled library (`priv/native/TARGET-NIFVERSION/`, made by `scripts/precompile`) is used
  where everything fits that its `mesh_nif.info` says: the target of the running VM, a C library at
  least as new, the NIF version, and the Rust sources. Where something does not, the output says
  what, and cargo builds: always a release build, for a debug build of the data plane is many times
  slower.

  Cargo is called when a Rust source, a manifest, the lock file, the compiler or the target has
  changed, or when the library is missing; otherwise a run costs reading those files and asking the
  compiler for its version. The library lies in the source's own `priv`, the artefacts in its
  `target`, both shared by all `MIX_ENV`s, so that `dev`, `test` and `prod` compile Rust once.

  Environment variables, for all of which empty is the same as unset:

    * `MESH_BUILD` - `1` builds with cargo even where a precompiled library fits
    * `CARGO` - another cargo
    * `CARGO_TARGET_DIR` - another place for the artefacts
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
        Mix.raise("MESH_BUILD is #{inspect(other)}: 1 builds with cargo, 0 is the default")
    end
  end

  defp current?(_choice, nil), do: false
  defp current?({:precompiled, _library, info}, installed), do: installed == info

  # What was built stays where there is no compiler any more, as in a later stage of an image: info
  # then names none, and any will do.
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
