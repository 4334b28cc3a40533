defmodule ExServiceMeshRouter.Json do
  @moduledoc false
  # As much of JSON (RFC 8259) as the pages and the Mix tasks say to each other. Elixir has its own
  # from 1.18 on, OTP from 27 on, and this library has no dependencies.
  #
  # Written: maps, keyword lists (objects whose members keep their order), lists, strings, atoms,
  # numbers, `nil`, booleans, dates. Read: everything, objects as maps with strings as keys.

  @max_depth 64

  @doc "The text of a term, as iodata."
  def encode(nil), do: "null"
  def encode(value) when is_boolean(value), do: Atom.to_string(value)
  def encode(value) when is_atom(value), do: value |> inspect_atom() |> string()
  def encode(value) when is_binary(value), do: string(value)
  def encode(value) when is_integer(value), do: Integer.to_string(value)
  def encode(value) when is_float(value), do: Float.to_string(value)
  def encode(%DateTime{} = value), do: value |> DateTime.to_iso8601() |> string()
  def encode(%_{} = value), do: value |> Map.from_struct() |> encode()
  def encode(%{} = value), do: value |> Enum.sort() |> object()
  def encode([]), do: "[]"

  def encode(value) when is_list(value) do
    if Keyword.keyword?(value),
      do: object(value),
      else: ["[", value |> Enum.map(&encode/1) |> Enum.intersperse(","), "]"]
  end

  defp object(members) do
    members =
      for {key, value} <- members, do: [key |> to_string() |> string(), ":", encode(value)]

    ["{", Enum.intersperse(members, ","), "}"]
  end

  # Modules as people write them.
  defp inspect_atom(atom) do
    case Atom.to_string(atom) do
      "Elixir." <> name -> name
      name -> name
    end
  end

  # What is no UTF-8 (bytes of a stranger's request) is read as Latin-1: JSON has no other bytes.
  defp string(text) do
    text = if String.valid?(text), do: text, else: :unicode.characters_to_binary(text, :latin1)
    [?", escape(text, text, 0, 0), ?"]
  end

  defp escape(<<byte, rest::binary>>, text, start, length)
       when byte in [?", ?\\, ?<, ?>, ?&] or byte < 0x20 or byte == 0x7F do
    [
      binary_part(text, start, length),
      escaped(byte) | escape(rest, text, start + length + 1, 0)
    ]
  end

  defp escape(<<_byte, rest::binary>>, text, start, length),
    do: escape(rest, text, start, length + 1)

  defp escape(<<>>, text, start, length), do: [binary_part(text, start, length)]

  defp escaped(?"), do: ~S(\")
  defp escaped(?\\), do: ~S(\\)
  defp escaped(?\n), do: ~S(\n)
  # `<`, `>` and `&`, too: then a browser that takes the text for HTML finds none in it.
  defp escaped(byte),
    do: ["\\u", byte |> Integer.to_string(16) |> String.pad_leading(4, "0")]

  @doc "`{:ok, term}`, or `:error` for what is no JSON."
  def decode(text) when is_binary(text) do
    {value, rest} = text |> skip() |> value(0)
    if skip(rest) == "", do: {:ok, value}, else: :error
  catch
    :malformed -> :error
  end

  defp value("null" <> rest, _depth), do: {nil, rest}
  defp value("true" <> rest, _depth), do: {true, rest}
  defp value("false" <> rest, _depth), do: {false, rest}
  defp value(<<?", rest::binary>>, _depth), do: chars(rest, [])

  defp value(<<byte, rest::binary>>, depth) when byte in [?[, ?{] and depth < @max_depth do
    rest = skip(rest)

    case {byte, rest} do
      {?[, "]" <> rest} -> {[], rest}
      {?[, _} -> array(rest, [], depth + 1)
      {?{, "}" <> rest} -> {%{}, rest}
      {?{, _} -> members(rest, [], depth + 1)
    end
  end

  defp value(text, _depth) do
    case Regex.run(~r/\A-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?/, text) do
      nil -> throw(:malformed)
      [number | _] -> {number(number), binary_part_from(text, byte_size(number))}
    end
  end

  defp number(text) do
    case Integer.parse(text) do
      {integer, ""} -> integer
      _ -> text |> Float.parse() |> elem(0)
    end
  end

  defp binary_part_from(text, at), do: binary_part(text, at, byte_size(text) - at)

  defp array(text, values, depth) do
    {value, rest} = value(text, depth)

    case skip(rest) do
      "," <> rest -> rest |> skip() |> array([value | values], depth)
      "]" <> rest -> {Enum.reverse([value | values]), rest}
      _ -> throw(:malformed)
    end
  end

  defp members(<<?", rest::binary>>, members, depth) do
    {key, rest} = chars(rest, [])
    rest = with ":" <> rest <- skip(rest), do: skip(rest), else: (_ -> throw(:malformed))
    {value, rest} = value(rest, depth)
    members = [{key, value} | members]

    case skip(rest) do
      "," <> rest -> rest |> skip() |> members(members, depth)
      "}" <> rest -> {members |> Enum.reverse() |> Map.new(), rest}
      _ -> throw(:malformed)
    end
  end

  defp members(_text, _members, _depth), do: throw(:malformed)

  defp chars(<<?", rest::binary>>, read),
    do: {read |> Enum.reverse() |> IO.iodata_to_binary(), rest}

  defp chars(<<"\\u", hex::binary-size(4), rest::binary>>, read) do
    case {unit(hex), rest} do
      {high, <<"\\u", low::binary-size(4), rest::binary>>} when high in 0xD800..0xDBFF ->
        chars(rest, [surrogates(high, unit(low)) | read])

      {unit, _} when unit in 0xD800..0xDFFF ->
        throw(:malformed)

      {unit, rest} ->
        chars(rest, [<<unit::utf8>> | read])
    end
  end

  for {escape, meant} <- [
        {"\\\"", ?"},
        {"\\\\", ?\\},
        {"\\/", ?/},
        {"\\b", ?\b},
        {"\\f", ?\f},
        {"\\n", ?\n},
        {"\\r", ?\r},
        {"\\t", ?\t}
      ] do
    defp chars(<<unquote(escape), rest::binary>>, read), do: chars(rest, [unquote(meant) | read])
  end

  defp chars(<<char::utf8, rest::binary>>, read) when char >= 0x20 and char != ?\\,
    do: chars(rest, [<<char::utf8>> | read])

  defp chars(_text, _read), do: throw(:malformed)

  defp unit(hex) do
    if hex =~ ~r/\A[0-9A-Fa-f]{4}\z/, do: String.to_integer(hex, 16), else: throw(:malformed)
  end

  defp surrogates(high, low) when low in 0xDC00..0xDFFF,
    do: <<0x10000 + (high - 0xD800) * 0x400 + (low - 0xDC00)::utf8>>

  defp surrogates(_high, _low), do: throw(:malformed)

  defp skip(<<byte, rest::binary>>) when byte in [?\s, ?\t, ?\r, ?\n], do: skip(rest)
  defp skip(text), do: text
end
