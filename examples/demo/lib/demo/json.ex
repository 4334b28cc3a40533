defmodule Demo.JSON do
  @moduledoc """
  As much of JSON as the demo says: strings, integers, `nil`, lists, and pairs in their order as
  objects (`{:object, [{"name", value}]}`). OTP has its own from version 27 on only.
  """

  @type value :: String.t() | integer() | nil | [value()] | {:object, [{String.t(), value()}]}

  @spec encode(value()) :: iodata()
  def encode(nil), do: "null"
  def encode(number) when is_integer(number), do: Integer.to_string(number)
  def encode(values) when is_list(values), do: ["[", commas(values, &encode/1), "]"]

  def encode({:object, pairs}) do
    ["{", commas(pairs, fn {name, value} -> [encode(name), ":", encode(value)] end), "}"]
  end

  def encode(string) when is_binary(string), do: [?", escape(string), ?"]

  defp commas(values, fun), do: values |> Enum.map(fun) |> Enum.intersperse(",")

  # Bytes that are no UTF-8 can arrive in a header, but cannot stand in JSON: each of them is taken
  # for its character in Latin-1, which is how HTTP used to read them.
  defp escape(string) do
    if String.valid?(string) do
      for <<char::utf8 <- string>>, into: "", do: escape_char(char)
    else
      for <<byte <- string>>, into: "", do: escape_char(byte)
    end
  end

  defp escape_char(?"), do: ~S(\")
  defp escape_char(?\\), do: ~S(\\)

  defp escape_char(char) when char < 0x20 do
    "\\u" <> String.pad_leading(Integer.to_string(char, 16), 4, "0")
  end

  defp escape_char(char), do: <<char::utf8>>
end
