defmodule ExServiceMeshRouter.Doctor.Checks.EndpointPort do
  @moduledoc false
  # Generated applications and the gateway have port 4000. No finding for endpoints that get a private
  # listener then.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix, Private}
  alias ExServiceMeshRouter.Listeners.Policy

  def findings(%{running?: false, server?: true, port: port} = snapshot) when port != 0 do
    snapshot.endpoints
    |> Enum.filter(&Private.gateways_port?(&1, snapshot))
    |> Enum.reject(&Policy.instead?(snapshot.config.private_listeners, &1.endpoint))
    |> Enum.with_index(1)
    |> Enum.map(fn {it, index} ->
      settings = [http: [port: free(snapshot, index)]] ++ links(it, port)

      Map.merge(Fix.endpoint(it, settings, snapshot), %{
        problem: "#{Endpoint.name(it)} and the gateway are both configured with port #{port}",
        why: "The one that starts second finds its port in use."
      })
    end)
  end

  def findings(_snapshot), do: []

  # If `url:` has no port, links would lead to the endpoint's new one.
  defp links(it, port), do: if(Endpoint.links(it).explicit?, do: [], else: [url: [port: port]])

  defp free(snapshot, index) do
    taken = Enum.map(snapshot.endpoints, &Endpoint.http_port/1)
    (snapshot.port + 1)..65_535 |> Stream.reject(&(&1 in taken)) |> Enum.at(index - 1)
  end
end
