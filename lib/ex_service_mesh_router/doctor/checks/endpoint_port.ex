defmodule ExServiceMeshRouter.Doctor.Checks.EndpointPort do
  @moduledoc false
  # Every generated application says 4000, and 4000 is the gateway's. Whoever is to have a private
  # listener then gets one.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix}
  alias ExServiceMeshRouter.PrivateListeners.Policy

  def findings(%{running?: false, server?: true, port: port} = snapshot) when port != 0 do
    snapshot.endpoints
    |> Enum.filter(&(&1.serves? == true and Endpoint.http_port(&1) == port))
    |> Enum.reject(&Policy.instead?(snapshot.config.private_listeners, &1.endpoint))
    |> Enum.with_index(1)
    |> Enum.map(fn {it, index} ->
      %{
        problem: "#{Endpoint.name(it)} and the gateway both want port #{port}",
        why: "Whoever comes second does not start.",
        file: Fix.file(snapshot),
        fix: Fix.endpoint(it, http: [port: free(snapshot, index)])
      }
    end)
  end

  def findings(_snapshot), do: []

  defp free(snapshot, index) do
    taken = Enum.map(snapshot.endpoints, &Endpoint.http_port/1)
    (snapshot.port + 1)..65_535 |> Stream.reject(&(&1 in taken)) |> Enum.at(index - 1)
  end
end
