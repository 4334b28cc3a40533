defmodule ExServiceMeshRouter.NifBuild.Info do
  @moduledoc false
  # Reads and writes the text file beside a library that describes its sources and target: one `key =
  # value` per line.

  @doc "Returns the path of the file that describes `library`."
  def path(library), do: Path.rootname(library) <> ".info"

  def read(library) do
    case File.read(path(library)) do
      {:ok, text} -> {:ok, parse(text)}
      {:error, _} -> :error
    end
  end

  defp parse(text) do
    for line <- String.split(text, "\n"),
        [key, value] <- [String.split(line, " = ", parts: 2)],
        into: %{},
        do: {key, String.trim(value)}
  end

  def format(info) do
    info |> Enum.sort() |> Enum.map_join(fn {key, value} -> "#{key} = #{value}\n" end)
  end

  def md5(content), do: content |> :erlang.md5() |> Base.encode16(case: :lower)
end
