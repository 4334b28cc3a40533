defmodule ExServiceMeshRouter.Console.Index.Html do
  @moduledoc false
  # Text as HTML: of hosts and paths, which strangers choose, and of everything else.

  @doc "Escapes a term's text for elements and for quoted attributes."
  def escape(value) do
    value
    |> to_string()
    |> printable()
    |> String.replace("&", "&amp;")
    |> String.replace("<", "&lt;")
    |> String.replace(">", "&gt;")
    |> String.replace("\"", "&quot;")
    |> String.replace("'", "&#39;")
  end

  defp printable(text),
    do: if(String.valid?(text), do: text, else: :unicode.characters_to_binary(text, :latin1))
end
