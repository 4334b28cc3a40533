defmodule ExServiceMeshRouter.Listeners.Front do
  @moduledoc false
  # Makes a private listener look like a port of the endpoint: `conn.remote_ip`, `scheme`, `host` and
  # `port` are those of the client, and the peer is an IP address although the connection is a Unix
  # socket.
  #
  # Bandit gets this module as its plug and `BanditTransport` as its transport; Cowboy gets
  # `CowboyHandler`. Must compile without both.

  alias ExServiceMeshRouter.RemoteIp
  alias ExServiceMeshRouter.Listeners.{BanditTransport, CowboyHandler}

  @doc """
  Inserts the front into the child specification of a listener. Returns `:error` for an unknown adapter
  or a custom transport. The listener does not log its address, because the line of the route has it.
  """
  def put_before(%{start: {Bandit, :start_link, [options]}} = spec) do
    island = Keyword.get(options, :thousand_island_options, [])

    if Keyword.has_key?(island, :transport_module) do
      :error
    else
      options =
        options
        |> Keyword.update!(:plug, &{__MODULE__, &1})
        |> Keyword.put(:startup_log, false)
        |> Keyword.put(:thousand_island_options, [transport_module: BanditTransport] ++ island)

      {:ok, %{spec | start: {Bandit, :start_link, [options]}}}
    end
  end

  # Phoenix's start function only adds a log line to Ranch's.
  def put_before(
        %{start: {Phoenix.Endpoint.Cowboy2Adapter, :start_link, [_, _, {ranch, function, args}]}} =
          spec
      ) do
    {:ok, %{spec | start: {ranch, function, List.update_at(args, -1, &with_stream_handler/1)}}}
  end

  def put_before(_spec), do: :error

  @doc "Returns the start of a child specification as it was before put_before/1."
  def remove({Bandit, :start_link, [options]}) do
    case {options[:plug], Keyword.get(options, :thousand_island_options, [])} do
      {{__MODULE__, plug}, [{:transport_module, BanditTransport} | island]} ->
        options = Keyword.merge(options, plug: plug, thousand_island_options: island)
        {Bandit, :start_link, [options]}

      _own ->
        {Bandit, :start_link, [options]}
    end
  end

  def remove(start), do: start

  defp with_stream_handler(options) do
    handlers = Map.get(options, :stream_handlers, [:cowboy_stream_h])
    Map.put(options, :stream_handlers, [CowboyHandler | handlers])
  end

  @doc false
  def init({plug, options}), do: {plug, plug.init(options), RemoteIp.init([])}
  def init(plug), do: init({plug, []})

  @doc false
  # Without a Unix socket the listener has a loopback port, which other processes can reach.
  def call(conn, {plug, options, remote_ip}) do
    if RemoteIp.own?(conn) do
      conn = RemoteIp.restore(conn, remote_ip)
      BanditTransport.with_client(conn.remote_ip, fn -> plug.call(conn, options) end)
    else
      plug.call(conn, options)
    end
  end
end
