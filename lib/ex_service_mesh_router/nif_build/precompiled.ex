defmodule ExServiceMeshRouter.NifBuild.Precompiled do
  @moduledoc false
  # Finds a library of scripts/precompile that the running VM can load, or explains why there is none.
  # The mesh_nif.info of a library has its target, not the name of its directory.

  alias ExServiceMeshRouter.NifBuild.Info

  @libraries "priv/native/*-*/mesh_nif.so"

  @doc """
  Returns `{:ok, library, info}` with the best match, `{:none, sentence}` if no library fits, or
  `{:none, nil}` if there are none.
  """
  def find(target, sources) do
    all = for library <- Path.wildcard(@libraries), do: {library, info(library)}
    {own, others} = Enum.split_with(all, fn {_, info} -> info["target"] == target.triple end)

    judged =
      for {library, info} <- own, do: {library, info, misfit(library, info, target, sources)}

    case Enum.filter(judged, &match?({_, _, nil}, &1)) do
      [] -> {:none, sentence(judged, others, target)}
      fitting -> best(fitting)
    end
  end

  defp best(fitting) do
    {library, info, nil} = Enum.max_by(fitting, fn {_, info, _} -> version(info["nif"]) end)
    {:ok, library, info}
  end

  # A library without info, from an incomplete copy, has no target.
  defp info(library) do
    case Info.read(library) do
      {:ok, info} -> info
      :error -> %{}
    end
  end

  defp misfit(library, info, target, sources) do
    sources(info, sources) || nif(info, target) || glibc(info, target) || content(library, info)
  end

  defp sources(info, sources) do
    if info["sources"] != sources, do: "it was built from other Rust sources than these"
  end

  defp nif(info, target) do
    {major, minor} = version(target.nif)

    case version(info["nif"]) do
      {^major, needed} when needed <= minor ->
        nil

      _other ->
        "it needs NIF version #{info["nif"]}, and this Erlang has #{target.nif}"
    end
  end

  defp glibc(%{"glibc" => needed}, target) do
    cond do
      target.glibc == nil ->
        "it needs glibc #{needed} or later, and the version of this system's C library is unknown"

      version(needed) == nil or version(needed) > version(target.glibc) ->
        "it needs glibc #{needed} or later, and this system has #{target.glibc}"

      true ->
        nil
    end
  end

  # musl and macOS have no symbol versions, so their libraries require none.
  defp glibc(_info, _target), do: nil

  defp content(library, info) do
    if Info.md5(File.read!(library)) != info["md5"],
      do: "it is not the file that its mesh_nif.info describes"
  end

  defp version(text) do
    case Regex.run(~r/^(\d+)\.(\d+)$/, text || "") do
      [_, major, minor] -> {String.to_integer(major), String.to_integer(minor)}
      nil -> nil
    end
  end

  defp sentence([], [], _target), do: nil

  defp sentence([], others, target) do
    names = Enum.map_join(others, ", ", fn {library, info} -> info["target"] || library end)
    "No precompiled library fits: this system is #{target.triple}, and they are for #{names}."
  end

  defp sentence([{library, _info, misfit} | _], _others, _target) do
    "The precompiled library #{Path.relative_to_cwd(library)} does not fit: #{misfit}."
  end
end
