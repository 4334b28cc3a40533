defmodule ExServiceMeshRouter.Doctor.Checks.EndpointPort do
  @moduledoc false
  # Every generated application says 4000, and 4000 is the gateway's. Whoever is to have a private
  # listener then gets one.

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
        problem: "#{Endpoint.name(it)} and the gateway both want port #{port}",
        why: "The second one does not start."
      })
    end)
  end

  def findings(_snapshot), do: []

  # Where `url:` has no port, links would follow to the endpoint's new one.
  defp links(it, port), do: if(Endpoint.links(it).explicit?, do: [], else: [url: [port: port]])

  defp free(snapshot, index) do
    taken = Enum.map(snapshot.endpoints, &Endpoint.http_port/1)
    (snapshot.port + 1)..65_535 |> Stream.reject(&(&1 in taken)) |> Enum.at(index - 1)
  end
end
