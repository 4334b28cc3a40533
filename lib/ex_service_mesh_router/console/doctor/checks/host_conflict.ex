defmodule ExServiceMeshRouter.Doctor.Checks.HostConflict do
  @moduledoc false
  # Two services have the same host, so one of them gets no requests. It is always an endpoint.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix}
  alias ExServiceMeshRouter.Endpoint.DevNames

  def findings(snapshot) do
    for {host, winner, loser} <- snapshot.conflicts,
        it = Enum.find(snapshot.endpoints, &(Endpoint.name(&1) == loser)),
        host == Endpoint.links(it).host,
        do: finding(it, host, winner, snapshot)
  end

  defp finding(it, host, winner, snapshot) do
    Map.merge(Fix.endpoint(it, [url: [host: free(it, host, snapshot)]], snapshot), %{
      problem: "#{host} is the host of both #{winner} and #{Endpoint.name(it)}",
      why: "#{winner} gets the requests, #{Endpoint.name(it)} gets none."
    })
  end

  defp free(it, host, snapshot) do
    taken =
      for %{key: key} = service <- snapshot.services,
          key != {:endpoint, it.endpoint},
          taken <- service.hosts ++ service.derived,
          do: taken

    label = DevNames.label(it.application, it.endpoint)
    full = it.application |> Atom.to_string() |> String.replace("_", "-")
    names = for name <- [label, full, label <> "-2"], do: Fix.sibling(name, host)
    Enum.find(names, &(&1 != host and &1 not in taken))
  end
end
