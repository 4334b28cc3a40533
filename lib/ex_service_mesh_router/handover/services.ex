defmodule ExServiceMeshRouter.Handover.Services do
  @moduledoc false
  # Compares what the two gateways serve. A difference is no failure: a new version may drop an endpoint.

  require Logger

  # A message has a bound.
  @max 200

  @doc "Returns the names of the services that listen."
  def listening(name) do
    names = for %{state: :listening} = it <- ExServiceMeshRouter.services(name), do: text(it.name)
    Enum.take(names, @max)
  end

  # Modules as in the log.
  defp text(name) when is_atom(name), do: inspect(name)
  defp text(name), do: to_string(name)

  def compare(name, peer, before) do
    case before -- listening(name) do
      [] ->
        :ok

      gone ->
        Logger.warning(
          "gateway handover: process #{peer} served #{Enum.join(gone, ", ")}, and this one does not"
        )
    end
  end
end
