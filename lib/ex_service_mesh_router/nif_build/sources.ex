defmodule ExServiceMeshRouter.NifBuild.Sources do
  @moduledoc false
  # Lists the files that cargo builds the data plane from. Must not depend on other modules, because
  # scripts/precompile loads only this file.
  #
  # Trap: all these files must be in the package. A missing file changes the fingerprint, and no
  # precompiled library would fit.

  @patterns ~w(Cargo.toml Cargo.lock rust-toolchain rust-toolchain.toml .cargo/config.toml
               native/mesh_*/Cargo.toml native/mesh_*/build.rs native/mesh_*/src/**/*)

  @doc "Returns the files, relative to `dir`."
  def files(dir \\ ".") do
    for pattern <- @patterns,
        path <- Path.wildcard(Path.join(dir, pattern), match_dot: true),
        File.regular?(path),
        do: Path.relative_to(path, dir)
  end

  # Contents, not times: switching branches must not cause a rebuild.
  @doc "Returns a hash of the names and contents of all files."
  def fingerprint(dir \\ ".") do
    files(dir)
    |> Enum.sort()
    |> Enum.map(&[&1, 0, File.read!(Path.join(dir, &1))])
    |> :erlang.md5()
    |> Base.encode16(case: :lower)
  end
end
