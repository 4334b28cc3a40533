defmodule ExServiceMeshRouter.PrivateListeners.Settings do
  @moduledoc false
  # The settings of endpoints in the environment of their applications, from which they start.
  #
  # Whoever shall not listen itself is given `http: false`, which Phoenix and its adapters know. What
  # stood there before is kept beside it, under a key of our own: it is needed for the private
  # listener (options of the server), after a restart of the gateway, and to be put back.

  @key :ex_service_mesh_router

  def get(application, endpoint) do
    case Application.get_env(application, endpoint) do
      settings when is_list(settings) -> settings
      _ -> []
    end
  end

  @doc "Whether an endpoint with these settings listens, by Phoenix's rule."
  def serves?(settings) do
    case settings[:server] do
      nil -> Application.get_env(:phoenix, :serve_endpoints, false) == true
      server -> server == true
    end
  end

  @doc "Whether the gateway has taken the listening over."
  def taken?(settings), do: is_list(settings[@key])

  @doc "`http:` as it was configured."
  def http(settings), do: if(taken?(settings), do: settings[@key][:http], else: settings[:http])

  @doc """
  Takes `http:` away before the endpoint starts, or starts anew. Links keep a port that answers:
  Phoenix would take it from `http:`.
  """
  def take(application, endpoint, port) do
    settings = get(application, endpoint)

    unless taken?(settings) do
      kept = Keyword.take(settings, [:http, :url])

      put(
        application,
        endpoint,
        with_port([{:http, false}, {@key, kept} | Keyword.delete(settings, :http)], port)
      )
    end
  end

  @doc "Gives links the port of the gateway if they have none, and there is no `http:` to tell."
  def link(application, endpoint, port) do
    settings = get(application, endpoint)

    unless taken?(settings) or settings[:http] || settings[:https] || settings[:url][:port],
      do:
        put(
          application,
          endpoint,
          with_port([{@key, Keyword.take(settings, [:http, :url])} | settings], port)
        )
  end

  @doc "Puts back what was there."
  def restore({application, endpoint}) do
    settings = get(application, endpoint)

    if taken?(settings) do
      {kept, settings} = Keyword.pop(settings, @key)
      put(application, endpoint, kept ++ Keyword.drop(settings, [:http, :url]))
    end
  end

  defp with_port(settings, port) do
    url = settings |> Keyword.get(:url, []) |> Keyword.put_new(:port, port)
    Keyword.put(settings, :url, url)
  end

  # Persistent, because an application that is loaded later must not bring the old ones back.
  defp put(application, endpoint, settings),
    do: Application.put_env(application, endpoint, settings, persistent: true, timeout: :infinity)
end
