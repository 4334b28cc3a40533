defmodule ExServiceMeshRouter.Json do
  @moduledoc false
  # Encodes and decodes JSON with Elixir's `JSON` (1.18 and later), with Jason if the host application
  # has it, otherwise with Json.Fallback.
  #
  # Encodes every term: structs and keyword lists as objects, atoms and dates as strings, bytes from
  # requests that are not UTF-8 as Latin-1, and other terms as the text of `inspect/1`.

  if Code.ensure_loaded?(JSON) do
    defp library, do: JSON
  else
    alias ExServiceMeshRouter.Json.Fallback

    # At run time: Jason is not a dependency, so it may be compiled after this module.
    defp library, do: if(Code.ensure_loaded?(Jason), do: Jason, else: Fallback)
  end

  @doc "Encodes a term."
  def encode(term, library \\ library()) do
    # Escaped, so that a browser that mistakes the text for HTML finds no elements.
    text = term |> plain() |> library.encode!()
    String.replace(text, ["<", ">", "&", "\d"], &("\\u00" <> Base.encode16(&1)))
  end

  @doc "Decodes a text: `{:ok, term}` with string keys in maps, or `:error`."
  def decode(text, library \\ library()) do
    with {:error, _reason} <- library.decode(text), do: :error
  end

  defp plain(value) when is_number(value) or is_boolean(value) or is_nil(value), do: value

  # Modules without the prefix `Elixir.`.
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
