defmodule ExServiceMeshRouter.Listeners.Takeover do
  @moduledoc false
  # Changes the settings of endpoints in the environment of their applications, and restores them.
  #
  # An endpoint that is not to listen gets `http: false`, which Phoenix and its adapters support. The
  # old values are kept under a separate key: for the private listener (server options), for a restarted
  # gateway, and for the restore.

  alias ExServiceMeshRouter.Endpoint.Settings
  alias ExServiceMeshRouter.Gateway.Applications

  @key :ex_service_mesh_router

  @doc "Returns the key of the old values, in the environment and in a running endpoint."
  def key, do: @key

  @doc "Returns whether the gateway listens in place of the endpoint."
  def taken?(settings), do: is_list(settings[@key])

  @doc "Returns `http:` as configured."
  def http(settings), do: if(taken?(settings), do: settings[@key][:http], else: settings[:http])

  @doc "Returns `url:` as configured."
  def url(settings) do
    Settings.url(if taken?(settings), do: settings[@key], else: settings)
  end

  @doc """
  Removes `http:` for the next start of the endpoint and sets the port and host of its links to `links`,
  see `Links`: Phoenix would take the port from `http:`.
  """
  def take(application, endpoint, links) do
    settings = Settings.configured(application, endpoint)

    taken =
      if taken?(settings),
        do: settings,
        else: [{:http, false} | settings |> keep() |> Keyword.delete(:http)]

    change(application, endpoint, settings, Keyword.put(taken, :url, linked(settings, links)))
  end

  @doc "Sets only the links, for an endpoint without `http:`."
  def link(application, endpoint, links) do
    settings = Settings.configured(application, endpoint)
    url = linked(settings, links)

    unless settings[:http] || settings[:https] || settings[:url] == url,
      do: change(application, endpoint, settings, settings |> keep() |> Keyword.put(:url, url))
  end

  @doc "Restores the old settings."
  def restore({application, endpoint}) do
    settings = Settings.configured(application, endpoint)

    if taken?(settings) do
      {kept, settings} = Keyword.pop(settings, @key)
      put(application, endpoint, kept ++ Keyword.drop(settings, [:http, :url]))
    end
  end

  defp keep(settings) do
    if taken?(settings),
      do: settings,
      else: [{@key, Keyword.take(settings, [:http, :url])} | settings]
  end

  # Another configured port is that of a proxy in front of the gateway.
  defp linked(settings, links) do
    port = links[:port]
    url = settings |> Settings.url() |> Keyword.put_new(:port, port)

    if url[:port] in [port, "#{port}"],
      do: Keyword.merge(url, Keyword.take(links, [:host])),
      else: url
  end

  defp change(application, endpoint, before, settings) do
    put(application, endpoint, settings)
    if links(before) != links(settings), do: tell(endpoint, before, settings)
  end

  defp links(settings), do: settings |> Settings.links() |> Map.take([:host, :port])

  # Updates a running endpoint, which computed the base of its links at its start.
  defp tell(endpoint, before, settings) do
    if Process.whereis(endpoint) && function_exported?(endpoint, :config_change, 2),
      do: endpoint.config_change([{endpoint, for_running(endpoint, before, settings)}], [])
  catch
    # The endpoint is stopping, or is not a Phoenix endpoint. The settings apply to its next start.
    _kind, _reason -> :ok
  end

  @doc """
  Returns `settings` for a running endpoint. Phoenix replaces all its settings and would lose the options
  of `start_link`, so the result also has the running settings that are not `configured`.
  """
  def for_running(endpoint, configured, settings),
    do: endpoint |> given(configured) |> merge(settings)

  # Phoenix keeps the settings in an ETS table named after the endpoint, beside its own terms.
  defp given(endpoint, configured) do
    running =
      for {key, value} <- :ets.tab2list(endpoint),
          is_atom(key) and key != :__config__,
          do: {key, value}

    differing(running, configured)
  rescue
    # There is no such table, so there are no options to keep.
    ArgumentError -> []
  end

  defp differing(running, configured) do
    for {key, value} <- running,
        before <- [configured[key]],
        value != before or not Keyword.has_key?(configured, key),
        do: {key, if(both?(value, before), do: differing(value, before), else: value)}
  end

  defp merge(given, settings) do
    Keyword.merge(settings, given, fn _key, setting, value ->
      if both?(setting, value), do: merge(value, setting), else: value
    end)
  end

  defp both?(one, other),
    do: one != [] and Keyword.keyword?(one) and other != [] and Keyword.keyword?(other)

  # Persistent: loading the application later must not restore the old settings.
  defp put(application, endpoint, settings),
    do: Applications.put_env(application, endpoint, settings, persistent: true)
end
