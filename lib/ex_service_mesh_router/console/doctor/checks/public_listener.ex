defmodule ExServiceMeshRouter.Doctor.Checks.PublicListener do
  @moduledoc false
  # Generated applications listen on every address in production, so clients can bypass the gateway.
  # Endpoints with a private listener are safe.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix, Private}

  def findings(%{development?: true}), do: []

  def findings(snapshot) do
    for %{serves?: true} = it <- snapshot.endpoints,
        {:tcp, ip, port} <- [Endpoint.listener(it)],
        not loopback?(ip),
        it.running? or not snapshot.running?,
        not Private.taken?(it, snapshot),
        do: finding(it, ip, port, snapshot)
  end

  defp loopback?({127, _, _, _}), do: true
  defp loopback?({0, 0, 0, 0, 0, 0, 0, 1}), do: true
  defp loopback?({0, 0, 0, 0, 0, 0xFFFF, high, _low}), do: div(high, 256) == 127
  defp loopback?(_ip), do: false

  defp finding(it, ip, port, snapshot) do
    Map.merge(Fix.endpoint(it, [http: http(it, port)], snapshot), %{
      problem: "#{Endpoint.name(it)} listens on #{address(ip)}#{port(port)}",
      why:
        "Other machines can bypass the gateway with its limits, access log, and rules for forwarded " <>
          "headers. The gateway reaches the endpoint on loopback."
    })
  end

  defp address(ip) when ip in [{0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}],
    do: "every address of this machine"

  defp address(ip), do: :inet.ntoa(ip)

  defp port(0), do: ""
  defp port(port), do: ", port #{port}"

  # Mix replaces a list that contains `:inet6` and does not merge it.
  defp http(it, port) do
    ip = {127, 0, 0, 1}
    if Keyword.keyword?(it.settings[:http]), do: [ip: ip], else: [ip: ip, port: port]
  end
end
