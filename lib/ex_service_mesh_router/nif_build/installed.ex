defmodule ExServiceMeshRouter.NifBuild.Installed do
  @moduledoc false
  # The library that ExServiceMeshRouter.Native loads. It lies in the source's own priv, so that all
  # MIX_ENVs share it and a release takes it along.

  alias ExServiceMeshRouter.NifBuild.Info

  @library "priv/native/mesh_nif.so"

  @doc "What is known of the library, if it is there and is the file that was put there."
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
    # The sum ties the two files together where two builds put theirs at once.
    replace!(Info.path(@library), Info.format(Map.put(info, "md5", Info.md5(content))))
  end

  # A VM may have the old file mapped, and another may open it now: the one keeps what it has, and
  # the other gets the old one or the new one, never half of one.
  defp replace!(path, content) do
    beside = "#{path}.#{System.pid()}.#{System.os_time()}"

    try do
      File.write!(beside, content)
      File.rename!(beside, path)
    after
      File.rm(beside)
    end
  end

  @doc "Mix links priv into _build; before the first build it was not there."
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
