defmodule ExServiceMeshRouter.Console.Index.Html do
  @moduledoc false
  # Escapes text for HTML. Clients choose hosts and paths.

  @doc "Escapes the text of a term for elements and quoted attributes."
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
