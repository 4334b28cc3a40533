defmodule ExServiceMeshRouter.Listeners.Links do
  @moduledoc false
  # Where the links of an endpoint shall lead that has no listener of its own (`url(~p"/")`, mails,
  # redirects to other hosts): to the gateway's port, where Phoenix would have taken that of `http:`.
  #
  # In development also to a host that reaches it. Every generated application says
  # `url: [host: "localhost"]`; that of several is nobody's (DevNames.shared/1), and their links would
  # all end at the index.

  alias ExServiceMeshRouter.Config.Environment
  alias ExServiceMeshRouter.Endpoint.{Candidates, DevNames}
  alias ExServiceMeshRouter.Listeners.Takeover

  @doc """
  `[port: port]`, and `:host` for an endpoint whose own is shared. `endpoints` are all that have
  settings, as `%{key: {application, endpoint}, settings: settings}`.
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

  # Only what is written down: an endpoint may be given its host when it is started, and that one
  # would lose to a host in the settings.
  defp said(%{settings: settings}), do: Takeover.url(settings)[:host]

  defp wanted?(%{key: {application, endpoint}}, %{discover: discover}),
    do: discover != false and Candidates.wanted?(endpoint, application, discover)
end
