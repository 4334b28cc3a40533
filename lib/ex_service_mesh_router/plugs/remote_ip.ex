defmodule ExServiceMeshRouter.RemoteIp do
  @moduledoc """
  A plug that restores what the client's connection was: `conn.remote_ip`, `conn.scheme`,
  `conn.host` and `conn.port`.

      # lib/auth_web/endpoint.ex, before anything that looks at them
      plug ExServiceMeshRouter.RemoteIp

  It is for endpoints with a port of their own. On private listeners of Bandit and Cowboy (see
  `ExServiceMeshRouter.Config`) all of this is done already, and the plug changes nothing.

  Behind a gateway such an endpoint sees the gateway's connections: `conn.remote_ip` is loopback. The
  gateway says who the client is in `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`, one line each,
  and replaces whatever a client says itself. `Plug.RewriteOn` reads the same fields, and believes
  them whoever connects. This plug believes them **only on the gateway's own connections**: it asks
  the gateway whether it is the peer. A request that reaches the endpoint by another way (its own
  port, another proxy) is left as it is, so that nobody can claim an address by going around.

  On a Unix socket that the endpoint opens itself, peers cannot be told apart, and every peer is
  believed.

  With `trusted_proxies`, `X-Forwarded-For` is a list, to which each proxy has added the peer that it
  saw. The client is the last address that is not itself a trusted proxy. Where an entry cannot be read
  (`unknown`), it is the proxy that passed the entry on, or 0.0.0.0 if that proxy is on this machine:
  such a client never has a loopback address.

  ## Options

    * `:only` (default all) - a list of what to restore: `:remote_ip`, `:scheme`, `:host`, `:port`.

  Other options raise `ArgumentError` when the plug is initialised.

  ## Sockets

  Phoenix sockets and LiveView do not pass through plugs of the endpoint. On a private listener, the
  address in `:peer_data` is the client's. For a port of its own, ask for the fields:

      socket "/live", Phoenix.LiveView.Socket,
        websocket: [connect_info: [:peer_data, :x_headers, session: @session_options]]

  and in `mount/3` (or a socket's `connect/3`) give them to `from_connect_info/1`:

      ip = ExServiceMeshRouter.RemoteIp.from_connect_info(%{
        peer_data: get_connect_info(socket, :peer_data),
        x_headers: get_connect_info(socket, :x_headers)
      })

  `check_origin` compares the origin of a socket with `url: [host: ...]`; tenants need it to name
  them, as in `check_origin: ["//auth.local", "//*.auth.local"]`.
  """

  alias ExServiceMeshRouter.Native
  alias ExServiceMeshRouter.Plugs.ForwardedReader

  @parts [:remote_ip, :scheme, :host, :port]

  @typedoc "What `init/1` returns."
  @opaque options :: [:remote_ip | :scheme | :host | :port]

  @doc "Checks the options."
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

  @doc "Restores what the gateway says about the client."
  @spec call(conn, options()) :: conn when conn: struct()
  def call(conn, only), do: if(own?(conn), do: restore(conn, only), else: conn)

  @doc false
  # What is missing or is no such thing leaves the connection as it is.
  def restore(%{req_headers: headers} = conn, only) do
    for part <- only, value = forwarded(part, headers), reduce: conn do
      conn -> Map.replace!(conn, part, value)
    end
  end

  @doc """
  The client's address from what a Phoenix socket was given as `:peer_data` and `:x_headers`: the
  forwarded one on a connection of the gateway, the peer's own on any other.
  """
  @spec from_connect_info(%{peer_data: map(), x_headers: [{binary(), binary()}]}) ::
          :inet.ip_address() | nil
  def from_connect_info(%{peer_data: peer, x_headers: headers}) do
    forwarded = if own?(peer), do: ForwardedReader.client(headers)
    forwarded || if(:inet.is_ip_address(peer.address), do: peer.address)
  end

  @doc false
  # The peer of connections to private listeners: no TCP peer has port 0.
  def gateway, do: {{127, 0, 0, 1}, 0}

  @doc false
  # Whether the peer, of a connection of Plug or as data, is the gateway. Bandit says `address: {:local, path}` of a Unix socket, Cowboy
  # `address: :local, port: path`.
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
