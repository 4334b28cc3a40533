defmodule ExServiceMeshRouter.Doctor.Checks.TrustedProxies do
  @moduledoc false
  # The gateway has no TLS. An endpoint whose address is https therefore has something in front that
  # does, and the gateway has to be told to believe it: else the endpoint hears that the client spoke
  # http, and that the proxy is the client.

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

  # `https:` of its own is another port of the endpoint, and nobody's business here.
  defp proxied?(%{settings: settings}) do
    Settings.url(settings)[:scheme] == "https" or
      (Keyword.keyword?(settings[:force_ssl]) and settings[:force_ssl][:rewrite_on] != nil)
  end

  defp finding(endpoints, snapshot) do
    names = Enum.map_join(endpoints, ", ", &Endpoint.name/1)

    networks = networks(snapshot.config.ip)

    Map.merge(Fix.gateway([trusted_proxies: networks], snapshot), %{
      problem: "#{names}: its links are https, and no proxy is trusted",
      why:
        "What a TLS proxy in front says about its clients is replaced: endpoints see http, and the " <>
          "proxy's address for every client. Name only the proxy."
    })
  end

  # Who listens on loopback only can have a proxy on this machine only.
  defp networks(:loopback), do: @loopback
  defp networks(_ip), do: @loopback ++ @private
end
