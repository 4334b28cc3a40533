# Servers with the names and the shapes of Bandit and Cowboy, as far as private listeners touch them:
# child specifications, the transport behaviour of Thousand Island, the stream handlers of Cowboy. Each
# answers one request a connection, with what the endpoint's plug returns.

defmodule ThousandIsland.Transports.TCP do
  @moduledoc false

  defdelegate listen(port, options), to: :gen_tcp
  defdelegate accept(socket), to: :gen_tcp
  defdelegate recv(socket, length, timeout), to: :gen_tcp
  defdelegate send(socket, data), to: :gen_tcp
  defdelegate close(socket), to: :gen_tcp
  defdelegate peername(socket), to: :inet
  defdelegate sockname(socket), to: :inet
end

defmodule ExServiceMeshRouter.ServerStandIn do
  @moduledoc "What both servers share: a listener, whose address is asked for, and requests."

  use GenServer

  def start_link(transport, options, serve),
    do: GenServer.start_link(__MODULE__, {transport, options, serve})

  @impl true
  def init({transport, options, serve}) do
    socket_options = [mode: :binary, active: false, ip: options[:ip]]

    with {:ok, listener} <- transport.listen(options[:port], socket_options) do
      spawn_link(fn -> accept(transport, listener, serve) end)
      {:ok, {transport, listener}}
    else
      {:error, reason} -> {:stop, reason}
    end
  end

  defp accept(transport, listener, serve) do
    {:ok, socket} = transport.accept(listener)
    {:ok, head} = transport.recv(socket, 0, 5_000)
    body = serve.(socket, fields(head))
    length = "content-length: #{byte_size(body)}"

    :ok =
      transport.send(socket, [
        "HTTP/1.1 200 OK\r\nconnection: close\r\n",
        length,
        "\r\n\r\n",
        body
      ])

    transport.close(socket)
    accept(transport, listener, serve)
  end

  defp fields(head) do
    for line <- String.split(head, "\r\n"),
        [name, value] <- [String.split(line, ": ", parts: 2)],
        do: {String.downcase(name), value}
  end

  @impl true
  def handle_call(:url, _from, {transport, listener} = state) do
    case transport.sockname(listener) do
      {:ok, {:local, path}} -> {:reply, "unix:" <> path, state}
      {:ok, {ip, port}} -> {:reply, "http://#{:inet.ntoa(ip)}:#{port}", state}
    end
  end

  @doc "The expression with which opentelemetry's handlers read a peer's address."
  def network_peer_address({address, _port}), do: address |> :inet.ntoa() |> to_string()
end

defmodule Bandit do
  @moduledoc false

  alias ExServiceMeshRouter.ServerStandIn

  defmodule PhoenixAdapter do
    @moduledoc false

    def child_specs(endpoint, config) do
      for options <- [config[:http]], options do
        options = [plug: endpoint, display_plug: endpoint, scheme: :http] ++ options
        %{id: {endpoint, :http}, start: {Bandit, :start_link, [options]}}
      end
    end
  end

  defmodule Adapter do
    @moduledoc false
    def get_peer_data({transport, socket}) do
      {:ok, {address, port}} = transport.peername(socket)
      %{address: address, port: port, ssl_cert: nil}
    end

    def get_sock_data({transport, socket}) do
      {:ok, {address, port}} = transport.sockname(socket)
      %{address: address, port: port}
    end
  end

  def start_link(options) do
    island = Keyword.get(options, :thousand_island_options, [])
    transport = Keyword.get(island, :transport_module, ThousandIsland.Transports.TCP)

    {plug, plug_options} =
      case options[:plug] do
        {plug, plug_options} -> {plug, plug.init(plug_options)}
        plug -> {plug, plug.init([])}
      end

    ServerStandIn.start_link(transport, options, fn socket, fields ->
      peer = fn -> elem(transport.peername(socket), 1) end
      before = ServerStandIn.network_peer_address(peer.())

      conn = %{
        adapter: {Adapter, {transport, socket}},
        req_headers: fields,
        remote_ip: elem(peer.(), 0),
        scheme: :http,
        host: "as.it.came",
        port: 80
      }

      body = plug.call(conn, plug_options)
      "#{body} telemetry: #{before}, #{ServerStandIn.network_peer_address(peer.())}"
    end)
  end
end

defmodule Phoenix.Endpoint.Cowboy2Adapter do
  @moduledoc false

  def child_specs(endpoint, config) do
    for options <- [config[:http]], options do
      ref = Module.concat(endpoint, HTTP)
      {protocol_options, options} = Keyword.pop(options, :protocol_options, [])

      defaults = %{
        env: %{dispatch: endpoint},
        stream_handlers: [:cowboy_telemetry_h, :cowboy_stream_h]
      }

      protocol_options = Map.merge(defaults, Map.new(protocol_options))
      ranch = [ref, :ranch_tcp, Map.new(options), :cowboy_clear, protocol_options]
      start = [:http, endpoint, {:ranch_listener_sup, :start_link, ranch}]
      %{id: {:ranch_listener_sup, ref}, start: {__MODULE__, :start_link, start}}
    end
  end

  def start_link(_scheme, _endpoint, _ranch), do: raise("it is told where it runs")
end

defmodule :ranch_listener_sup do
  @moduledoc false

  alias ExServiceMeshRouter.ServerStandIn

  def start_link(_ref, :ranch_tcp, options, :cowboy_clear, protocol_options) do
    transport = ThousandIsland.Transports.TCP

    ServerStandIn.start_link(transport, options, fn socket, fields ->
      {:ok, peer} = transport.peername(socket)
      {:ok, sock} = transport.sockname(socket)

      req = %{
        peer: peer,
        sock: sock,
        headers: Map.new(fields),
        scheme: "http",
        host: "as.it.came",
        port: 80
      }

      {[{:response, body}], _state} = :cowboy_stream.init(1, req, protocol_options)
      body
    end)
  end
end

defmodule :cowboy_stream do
  @moduledoc false

  def init(stream, req, %{stream_handlers: [handler | others]} = options) do
    {commands, state} = handler.init(stream, req, %{options | stream_handlers: others})
    {commands, {handler, state}}
  end
end

defmodule :cowboy_telemetry_h do
  @moduledoc false

  alias ExServiceMeshRouter.ServerStandIn

  def init(stream, req, options) do
    {[{:response, body}], next} = :cowboy_stream.init(stream, req, options)
    peer = ServerStandIn.network_peer_address(req.peer)
    {[{:response, "#{body} telemetry: #{peer}, #{peer}"}], next}
  end
end

defmodule :cowboy_stream_h do
  @moduledoc false

  defmodule Adapter do
    @moduledoc false
    def get_peer_data(%{peer: {address, port}}),
      do: %{address: address, port: port, ssl_cert: nil}

    def get_sock_data(%{sock: {address, port}}), do: %{address: address, port: port}
  end

  # As Plug.Cowboy makes a conn of a request.
  def init(_stream, req, %{env: %{dispatch: endpoint}}) do
    conn = %{
      adapter: {Adapter, req},
      req_headers: Map.to_list(req.headers),
      remote_ip: elem(req.peer, 0),
      scheme: String.to_atom(req.scheme),
      host: req.host,
      port: req.port
    }

    {[{:response, endpoint.call(conn, endpoint.init([]))}], nil}
  end
end
