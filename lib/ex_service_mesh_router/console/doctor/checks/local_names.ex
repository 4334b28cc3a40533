defmodule ExServiceMeshRouter.Doctor.Checks.LocalNames do
  @moduledoc false
  # macOS looks up names below .local on the network (mDNS, RFC 6762) before the hosts file, and waits
  # until that times out.

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
