defmodule ExServiceMeshRouter.Listeners.Links do
  @moduledoc false
  # Determines where the links (`url(~p"/")`, mails, redirects to other hosts) of an endpoint with a
  # private listener lead: to the gateway's port, because there is no port of `http:`.
  #
  # In development, it may also set the host. Every generated application has
  # `url: [host: "localhost"]`; if several endpoints share it, none gets it (DevNames.shared/1), and
  # their links would lead to the index.

  alias ExServiceMeshRouter.Config.Environment
  alias ExServiceMeshRouter.Endpoint.{Candidates, DevNames}
  alias ExServiceMeshRouter.Listeners.Takeover

  @doc """
  Returns `[port: port]`, with `:host` if the endpoint shares its own. `endpoints` are all endpoints
  with settings, as `%{key: {application, endpoint}, settings: settings}`.
  """
  def given(it, endpoints, port, config), do: [port: port] ++ host(it, endpoints, config)

  defp host(%{key: {application, endpoint}} = it, endpoints, config) do
    others =
      for other <- endpoints,
          other.key != it.key and wanted?(other, config),
          do: said(other) || "localhost"

    taken = others ++ for {host, _upstreams} <- config.services, do: host

    with true <- Environment.development?(),
         said = said(it),
         true <- said in DevNames.shared(config.dev_domain) and said in others,
         [name] <- DevNames.hosts(application, endpoint, config.dev_domain),
         false <- name in taken do
      [host: name]
    else
      _ -> []
    end
  end

  # Only the configured host: a host in the settings would override one that is passed at the start.
  defp said(%{settings: settings}), do: Takeover.url(settings)[:host]

  defp wanted?(%{key: {application, endpoint}}, %{discover: discover}),
    do: discover != false and Candidates.wanted?(endpoint, application, discover)
end
