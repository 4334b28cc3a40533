defmodule ExServiceMeshRouter.Index.Negotiation do
  @moduledoc false
  # The form a client would rather read: whichever of the three `Accept` names first, and text for
  # those who do not say. The data plane chooses the form of its own answers in the same way.

  @forms %{"text/html" => :html, "application/json" => :json, "text/plain" => :text}

  @doc "`:html`, `:json` or `:text`, from the values of all `Accept` fields."
  def form(values) do
    values
    |> Enum.flat_map(&String.split(&1, ","))
    |> Enum.map(&(&1 |> String.split(";") |> hd() |> String.trim() |> String.downcase(:ascii)))
    |> Enum.find_value(:text, &@forms[&1])
  end
end
