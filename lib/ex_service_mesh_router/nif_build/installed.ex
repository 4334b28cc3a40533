defmodule ExServiceMeshRouter.NifBuild.Installed do
  @moduledoc false
  # Manages the library that ExServiceMeshRouter.Native loads. It is in the priv directory of the
  # sources, so that all MIX_ENVs share it and a release includes it.

  alias ExServiceMeshRouter.NifBuild.Info

  @library "priv/native/mesh_nif.so"

  @doc "Returns the info of the library, or nil if the library is missing or another file."
  def info do
    with {:ok, content} <- File.read(@library),
         {:ok, %{"md5" => md5} = info} <- Info.read(@library),
         true <- Info.md5(content) == md5 do
      info
    else
      _missing_or_another -> nil
    end
  end

  def put!(library, info) do
    content = File.read!(library)
    File.mkdir_p!(Path.dirname(@library))
    replace!(@library, content)
    # The checksum detects files of two concurrent builds.
    replace!(Info.path(@library), Info.format(Map.put(info, "md5", Info.md5(content))))
  end

  # Renames, because a running VM may have the old file mapped, and another must not read half a file.
  defp replace!(path, content) do
    beside = "#{path}.#{System.pid()}.#{System.os_time()}"

    try do
      File.write!(beside, content)
      File.rename!(beside, path)
    after
      File.rm(beside)
    end
  end

  @doc "Links priv into _build, which Mix cannot do before the first build creates it."
  def expose do
    unless File.exists?(Path.join(Mix.Project.app_path(), @library)) do
      Mix.Project.build_structure()
    end
  end

  def remove do
    File.rm(@library)
    File.rm(Info.path(@library))
    :ok
  end
end
