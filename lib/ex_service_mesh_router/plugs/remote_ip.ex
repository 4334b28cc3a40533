defmodule ExServiceMeshRouter.RemoteIp do
  @moduledoc """
  A plug that sets `conn.remote_ip`, `conn.scheme`, `conn.host` and `conn.port` to those of the client's
  connection to the gateway.

      # lib/auth_web/endpoint.ex, before plugs that read them
      plug ExServiceMeshRouter.RemoteIp

  It is for endpoints with a port of their own. Private listeners of Bandit and Cowboy (see
  `ExServiceMeshRouter.Config`) set these values already, and the plug changes nothing.

  An endpoint with its own port sees the connections of the gateway: `conn.remote_ip` is loopback. The
  gateway writes the client's values to `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`, one line
  each, and replaces those of the client. `Plug.RewriteOn` reads the same fields and trusts every
  peer. This plug trusts them **only on connections of the gateway**: it asks the gateway whether the
  peer is one of its sockets. It does not change requests that reach the endpoint directly or through
  another proxy, so a client cannot forge its address there.

  On a Unix socket that the endpoint opens itself, peers cannot be distinguished, and the plug trusts
  every peer.

  With `trusted_proxies`, `X-Forwarded-For` is a list to which each proxy has added its peer. The client
  is the last address that is not a trusted proxy. If an entry cannot be read (`unknown`), the client
  is the proxy that passed the entry on, or 0.0.0.0 if that proxy is on this machine. Such a client
  never has a loopback address.

  ## Options

    * `:only` (default all) - a list of values to set: `:remote_ip`, `:scheme`, `:host`, `:port`.

  Other options raise `ArgumentError` when the plug is initialised.

  ## Sockets

  Phoenix sockets and LiveView do not pass through the plugs of the endpoint. On a private listener, the
  address in `:peer_data` is that of the client. For an endpoint with its own port, request the fields:

      socket "/live", Phoenix.LiveView.Socket,
        websocket: [connect_info: [:peer_data, :x_headers, session: @session_options]]

  and pass them to `from_connect_info/1` in `mount/3` (or in the `connect/3` of a socket):

      ip = ExServiceMeshRouter.RemoteIp.from_connect_info(%{
        peer_data: get_connect_info(socket, :peer_data),
        x_headers: get_connect_info(socket, :x_headers)
      })

  `check_origin` compares the origin of a socket with `url: [host: ...]`. To allow the tenants' origins,
  set `check_origin: ["//auth.local", "//*.auth.local"]`.
  """

  alias ExServiceMeshRouter.Native
  alias ExServiceMeshRouter.Plugs.ForwardedReader

  @parts [:remote_ip, :scheme, :host, :port]

  @typedoc "The result of `init/1`."
  @opaque options :: [:remote_ip | :scheme | :host | :port]

  @doc "Validates the options."
  @spec init(keyword()) :: options()
  def init(options) do
    only = Keyword.get(options, :only, @parts)

    case {Keyword.keys(options) -- [:only], is_list(only) && only -- @parts} do
      {[], []} ->
        only

      _ ->
        raise ArgumentError,
              "#{inspect(__MODULE__)} takes `only: [...]` with some of #{inspect(@parts)}, " <>
                "got: #{inspect(options)}"
    end
  end

  @doc "Sets the values of the client if the peer is the gateway."
  @spec call(conn, options()) :: conn when conn: struct()
  def call(conn, only), do: if(own?(conn), do: restore(conn, only), else: conn)

  @doc false
  # A missing or malformed field changes nothing.
  def restore(%{req_headers: headers} = conn, only) do
    for part <- only, value = forwarded(part, headers), reduce: conn do
      conn -> Map.replace!(conn, part, value)
    end
  end

  @doc """
  Returns the client's address from the `:peer_data` and `:x_headers` of a Phoenix socket.

  This is the forwarded address on a connection of the gateway and the peer's address on any other;
  `nil` if the peer has no IP address.
  """
  @spec from_connect_info(%{peer_data: map(), x_headers: [{binary(), binary()}]}) ::
          :inet.ip_address() | nil
  def from_connect_info(%{peer_data: peer, x_headers: headers}) do
    forwarded = if own?(peer), do: ForwardedReader.client(headers)
    forwarded || if(:inet.is_ip_address(peer.address), do: peer.address)
  end

  @doc false
  # The peer of connections to private listeners. TCP peers never have port 0.
  def gateway, do: {{127, 0, 0, 1}, 0}

  @doc false
  # Whether the peer of a Plug connection, or this peer data, is the gateway. For a Unix socket, Bandit
  # has `address: {:local, path}`, Cowboy `address: :local, port: path`.
  def own?(%{adapter: {adapter, state}}), do: own?(adapter.get_peer_data(state))
  def own?(%{address: {:local, _path}}), do: true
  def own?(%{address: :local}), do: true
  def own?(%{address: {127, 0, 0, 1}, port: 0}), do: true

  def own?(%{address: address, port: port}) do
    Native.loaded?() and Native.own_connection(address |> :inet.ntoa() |> to_string(), port)
  end

  defp forwarded(:remote_ip, headers), do: ForwardedReader.client(headers)
  defp forwarded(:scheme, headers), do: ForwardedReader.scheme(headers)
  defp forwarded(:host, headers), do: ForwardedReader.host(headers)
  defp forwarded(:port, headers), do: ForwardedReader.port(headers)
end
