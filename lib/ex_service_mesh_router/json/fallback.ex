defmodule ExServiceMeshRouter.Json.Fallback do
  @moduledoc false
  # Encodes and decodes JSON (RFC 8259) for Elixir before 1.18 without Jason. Encodes only maps with
  # string keys, lists, UTF-8 strings, numbers, booleans and `nil`; decodes all JSON.

  def encode!(term), do: term |> text() |> IO.iodata_to_binary()

  defp text(nil), do: "null"
  defp text(value) when is_boolean(value) or is_number(value), do: to_string(value)
  defp text(value) when is_list(value), do: ["[", Enum.map_intersperse(value, ",", &text/1), "]"]

  defp text(value) when is_binary(value),
    do: [?", String.replace(value, ~r/["\\\x00-\x1F]/, &("\\u00" <> Base.encode16(&1))), ?"]

  defp text(%{} = value) do
    member = fn {key, value} -> [text(key), ":", text(value)] end
    ["{", Enum.map_intersperse(value, ",", member), "}"]
  end

  def decode(text) do
    # The last alternative matches an invalid character as a token, which value/1 rejects.
    token = ~r/"(?:[^"\\\x00-\x1F]++|\\["\\\/bfnrt]|\\u[0-9A-Fa-f]{4})*+"
      |[\[\]{}:,]|true|false|null
      |-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?
      |[^\x20\t\r\n]/x

    with true <- String.valid?(text),
         {value, []} <- token |> Regex.scan(text) |> Enum.concat() |> value() do
      {:ok, value}
    else
      _ -> {:error, :malformed}
    end
  catch
    :malformed -> {:error, :malformed}
  end

  defp value(["null" | rest]), do: {nil, rest}
  defp value(["true" | rest]), do: {true, rest}
  defp value(["false" | rest]), do: {false, rest}
  defp value(["[", "]" | rest]), do: {[], rest}
  defp value(["[" | rest]), do: items(rest, [])
  defp value(["{", "}" | rest]), do: {%{}, rest}
  defp value(["{" | rest]), do: members(rest, %{})
  defp value([<<?", _, _::binary>> = string | rest]), do: {string(string), rest}

  defp value([number | rest]) do
    with {_, left} when left != "" <- Integer.parse(number),
         {float, ""} <- Float.parse(number) do
      {float, rest}
    else
      {integer, ""} -> {integer, rest}
      _ -> throw(:malformed)
    end
  end

  defp value([]), do: throw(:malformed)

  defp items(tokens, items) do
    case value(tokens) do
      {item, ["," | rest]} -> items(rest, [item | items])
      {item, ["]" | rest]} -> {Enum.reverse([item | items]), rest}
      _ -> throw(:malformed)
    end
  end

  defp members([<<?", _, _::binary>> = key, ":" | tokens], members) do
    {value, rest} = value(tokens)
    members = Map.put(members, string(key), value)

    case rest do
      ["," | rest] -> members(rest, members)
      ["}" | rest] -> {members, rest}
      _ -> throw(:malformed)
    end
  end

  defp members(_tokens, _members), do: throw(:malformed)

  defp string(quoted) do
    text = binary_part(quoted, 1, byte_size(quoted) - 2)
    Regex.replace(~r/(?:\\u[0-9A-Fa-f]{4})+|\\./, text, &unescape/1)
  end

  # A run of escapes is UTF-16: a surrogate pair is one character.
  defp unescape("\\u" <> _ = units) do
    utf_16 = units |> String.replace("\\u", "") |> Base.decode16!(case: :mixed)

    with text when not is_binary(text) <- :unicode.characters_to_binary(utf_16, {:utf16, :big}),
         do: throw(:malformed)
  end

  defp unescape("\\b"), do: "\b"
  defp unescape("\\f"), do: "\f"
  defp unescape("\\n"), do: "\n"
  defp unescape("\\r"), do: "\r"
  defp unescape("\\t"), do: "\t"
  defp unescape("\\" <> char), do: char
end
