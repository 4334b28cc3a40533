defmodule ExServiceMeshRouter.Doctor.Checks.TrustedProxies do
  @moduledoc false
  # The gateway has no TLS. An endpoint with an https URL has a TLS proxy in front, which the gateway must
  # trust: otherwise, the endpoint sees http and the proxy as the client.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix}
  alias ExServiceMeshRouter.Endpoint.Settings

  @private ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
  @loopback ["127.0.0.1", "::1"]

  def findings(%{config: %{native: %{trusted_proxies: []}}} = snapshot) do
    case Enum.filter(snapshot.endpoints, &proxied?/1) do
      [] -> []
      endpoints -> [finding(endpoints, snapshot)]
    end
  end

  def findings(_snapshot), do: []

  # An `https:` listener of the endpoint does not matter: the gateway does not use it.
  defp proxied?(%{settings: settings}) do
    Settings.url(settings)[:scheme] == "https" or
      (Keyword.keyword?(settings[:force_ssl]) and settings[:force_ssl][:rewrite_on] != nil)
  end

  defp finding(endpoints, snapshot) do
    names = Enum.map_join(endpoints, ", ", &Endpoint.name/1)

    networks = networks(snapshot.config.ip)

    Map.merge(Fix.gateway([trusted_proxies: networks], snapshot), %{
      problem: "#{names} generate https links, but `trusted_proxies` is empty",
      why:
        "The gateway replaces the forwarded fields of the TLS proxy: endpoints see http, and the " <>
          "proxy's address for every client. Keep only the proxy in the list."
    })
  end

  # A gateway on loopback can only have a proxy on this machine.
  defp networks(:loopback), do: @loopback
  defp networks(_ip), do: @loopback ++ @private
end
