defmodule ExServiceMeshRouter.Doctor.Checks.EndpointDown do
  @moduledoc false
  # An endpoint of a running application should listen and does not.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix}

  def findings(%{running?: true} = snapshot) do
    for %{state: :not_listening, serves?: true, started?: true} = it <- snapshot.endpoints,
        do: finding(it, snapshot)
  end

  def findings(_snapshot), do: []

  defp finding(%{running?: false} = it, _snapshot) do
    %{
      problem: "#{Endpoint.name(it)} is not running",
      why: "#{inspect(it.application)} has started without it; requests for it get a 503.",
      file: "the children in the application of #{inspect(it.application)}",
      fix: inspect(it.endpoint)
    }
  end

  defp finding(it, snapshot) do
    http = [ip: {127, 0, 0, 1}, port: free(snapshot)]

    Map.merge(Fix.endpoint(it, [http: http], snapshot), %{
      problem: "#{Endpoint.name(it)} runs, but has no listener that the gateway can reach",
      why: "Requests for it get a 503. The gateway speaks HTTP without TLS to endpoints."
    })
  end

  defp free(snapshot) do
    taken = [snapshot.port | Enum.map(snapshot.endpoints, &Endpoint.http_port/1)]
    Enum.find(4001..4999, &(&1 not in taken))
  end
end
