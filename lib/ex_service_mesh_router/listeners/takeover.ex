defmodule ExServiceMeshRouter.Listeners.Takeover do
  @moduledoc false
  # The settings of endpoints in the environment of their applications, from which they start.
  #
  # Whoever shall not listen itself is given `http: false`, which Phoenix and its adapters know. What
  # stood there before is kept beside it, under a key of our own: it is needed for the private
  # listener (options of the server), after a restart of the gateway, and to be put back.

  alias ExServiceMeshRouter.Endpoint.Settings
  alias ExServiceMeshRouter.Gateway.Applications

  @key :ex_service_mesh_router

  @doc "The key under which an endpoint that runs, too, has what was changed."
  def key, do: @key

  @doc "Whether the gateway has taken the listening over."
  def taken?(settings), do: is_list(settings[@key])

  @doc "`http:` as it was configured."
  def http(settings), do: if(taken?(settings), do: settings[@key][:http], else: settings[:http])

  @doc "`url:` as it was configured."
  def url(settings) do
    Settings.url(if taken?(settings), do: settings[@key], else: settings)
  end

  @doc """
  Takes `http:` away before the endpoint starts, or starts anew. Its links are given what `links`
  says, see `Links`: Phoenix would take their port from `http:`.
  """
  def take(application, endpoint, links) do
    settings = Settings.configured(application, endpoint)

    taken =
      if taken?(settings),
        do: settings,
        else: [{:http, false} | settings |> keep() |> Keyword.delete(:http)]

    change(application, endpoint, settings, Keyword.put(taken, :url, linked(settings, links)))
  end

  @doc "Only gives links what `links` says, to an endpoint that has no `http:`."
  def link(application, endpoint, links) do
    settings = Settings.configured(application, endpoint)
    url = linked(settings, links)

    unless settings[:http] || settings[:https] || settings[:url] == url,
      do: change(application, endpoint, settings, settings |> keep() |> Keyword.put(:url, url))
  end

  @doc "Puts back what was there."
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

  # A port that somebody has written down is somebody's in front, unless it is ours.
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

  # Phoenix's way to change the settings of an endpoint that runs. One that has started before the
  # gateway has computed the beginning of its links already.
  defp tell(endpoint, before, settings) do
    if Process.whereis(endpoint) && function_exported?(endpoint, :config_change, 2),
      do: endpoint.config_change([{endpoint, for_running(endpoint, before, settings)}], [])
  catch
    # It ends just now, or is no Phoenix endpoint. It starts with the new ones.
    _kind, _reason -> :ok
  end

  @doc """
  `settings` for an endpoint that runs. Phoenix replaces all of its settings with the new ones, and so
  would forget the options of `start_link`, which are in no environment: what it runs with and is not
  `configured` is added.
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
    # There is no such table, and nothing to lose.
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

  # Persistent, because an application that is loaded later must not bring the old ones back.
  defp put(application, endpoint, settings),
    do: Applications.put_env(application, endpoint, settings, persistent: true)
end
