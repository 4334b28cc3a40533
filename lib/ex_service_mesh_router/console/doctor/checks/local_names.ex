defmodule ExServiceMeshRouter.Doctor.Checks.LocalNames do
  @moduledoc false
  # macOS asks the network (mDNS, RFC 6762) for names below .local before it looks into the hosts
  # file, and waits for an answer that does not come.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix}
  alias ExServiceMeshRouter.Endpoint.DevNames

  def findings(%{os: :darwin} = snapshot) do
    for it <- snapshot.endpoints,
        host = Endpoint.links(it).host,
        String.ends_with?(host, ".local"),
        do: finding(it, host, snapshot)
  end

  def findings(_snapshot), do: []

  defp finding(it, host, snapshot) do
    name = DevNames.label(it.application, it.endpoint) <> ".localhost"

    Map.merge(Fix.endpoint(it, [url: [host: name]], snapshot), %{
      problem:
        "#{Endpoint.name(it)} has a host below .local, which macOS looks up on the network",
      why: "Each first request to #{host} takes seconds. Names below .localhost need no look-up."
    })
  end
end
