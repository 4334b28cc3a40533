defmodule ExServiceMeshRouter.Json do
  @moduledoc false
  # Writes and reads JSON with Elixir's own `JSON` (from 1.18 on), with Jason where the host
  # application has it, else with Json.Fallback.
  #
  # Every term can be written: structs and keyword lists as objects, atoms and dates as strings,
  # bytes that are not UTF-8 (of strangers' requests) as Latin-1, and all else as `inspect/1` has it.

  if Code.ensure_loaded?(JSON) do
    defp library, do: JSON
  else
    alias ExServiceMeshRouter.Json.Fallback

    # Asked at run time: Jason is not a dependency, so it may be compiled later than this module.
    defp library, do: if(Code.ensure_loaded?(Jason), do: Jason, else: Fallback)
  end

  @doc "The text of a term."
  def encode(term, library \\ library()) do
    # A browser that takes the text for HTML finds no element in it.
    text = term |> plain() |> library.encode!()
    String.replace(text, ["<", ">", "&", "\d"], &("\\u00" <> Base.encode16(&1)))
  end

  @doc "`{:ok, term}`, objects being maps with strings as keys, or `:error`."
  def decode(text, library \\ library()) do
    with {:error, _reason} <- library.decode(text), do: :error
  end

  defp plain(value) when is_number(value) or is_boolean(value) or is_nil(value), do: value

  # Modules as people write them.
  defp plain(value) when is_atom(value),
    do: value |> Atom.to_string() |> String.replace_prefix("Elixir.", "")

  defp plain(value) when is_binary(value),
    do: if(String.valid?(value), do: value, else: :unicode.characters_to_binary(value, :latin1))

  defp plain(%DateTime{} = value), do: DateTime.to_iso8601(value)
  defp plain(%_{} = value), do: value |> Map.from_struct() |> plain()

  defp plain(%{} = value),
    do: Map.new(value, fn {key, value} -> {key |> plain() |> to_string(), plain(value)} end)

  defp plain([_ | _] = value) do
    if Keyword.keyword?(value), do: value |> Map.new() |> plain(), else: Enum.map(value, &plain/1)
  end

  defp plain([]), do: []
  defp plain(value), do: inspect(value)
end
