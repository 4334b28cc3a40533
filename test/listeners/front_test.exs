defmodule ExServiceMeshRouter.Listeners.FrontTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExServiceMeshRouter.EndpointStandIn

  alias ExServiceMeshRouter.RemoteIp

  # What an application can see of a connection.
  defmodule Seen do
    def call(conn) do
      {adapter, state} = conn.adapter
      peer = adapter.get_peer_data(state)
      {:ok, text} = {:ok, peer.address |> :inet.ntoa() |> to_string()}
      info = RemoteIp.from_connect_info(%{peer_data: peer, x_headers: conn.req_headers})
      sock = adapter.get_sock_data(state)

      "#{inspect({conn.remote_ip, conn.scheme, conn.host, conn.port})} " <>
        "peer: #{text}, #{:inet.ntoa(info)} sock: #{:inet.ntoa(sock.address)}"
    end

    # The same, once more through the plug that endpoints on ports of their own need.
    def call_with_plug(conn), do: conn |> RemoteIp.call(RemoteIp.init([])) |> call()
  end

  @adapters [Bandit.PhoenixAdapter, Phoenix.Endpoint.Cowboy2Adapter]

  setup context do
    %{name: name, application: application, endpoint: endpoint} = unique("front")
    host = "#{name}.local"

    defaults = [
      adapter: context[:adapter],
      url: [host: host],
      server: true,
      http: false,
      plug: &Seen.call/1
    ]

    settings = Keyword.merge(defaults, Map.get(context, :settings, []))
    define(application, endpoint, settings)
    options = Map.get(context, :options, [])
    gateway = start_gateway([discover: [only: [application]]] ++ options)
    start_supervised!(endpoint)

    seen = fn fields ->
      request = "GET / HTTP/1.1\r\nHost: #{host}:4000\r\nConnection: close\r\n#{fields}\r\n"
      gateway |> url() |> RawClient.exchange(request) |> answer()
    end

    eventually(200, fn -> elem(seen.(""), 0) end)
    [%{upstreams: [upstream]}] = ExServiceMeshRouter.services(gateway)
    %{seen: seen, upstream: upstream}
  end

  @proxied [trusted_proxies: ["127.0.0.1"]]
  @forwarded "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n" <>
               "X-Forwarded-Host: auth.example.com\r\nX-Forwarded-Port: 443\r\n"

  for adapter <- @adapters do
    describe "on a private listener of #{inspect(adapter)}" do
      @describetag adapter: adapter

      test "the endpoint sees the client's address without a plug", %{seen: seen} do
        {200, text} = seen.(@forwarded)
        assert text =~ ~r/^{{127, 0, 0, 1}, :http, "front\d+\.local", 4000} /
        assert text =~ "peer: 127.0.0.1, 127.0.0.1 sock: 127.0.0.1"
      end

      @tag options: @proxied
      test "the client is the address that a trusted proxy names", %{seen: seen} do
        {200, text} = seen.(@forwarded)
        assert text =~ ~s|{{192, 0, 2, 7}, :https, "auth.example.com", 443} |
        assert text =~ "peer: 192.0.2.7, 192.0.2.7 sock: 127.0.0.1"
      end

      @tag options: @proxied
      test "telemetry of the server has an IP address, not the previous client's", %{
        seen: seen
      } do
        expected =
          if unquote(adapter) == Bandit.PhoenixAdapter, do: "127.0.0.1", else: "192.0.2.7"

        {200, _text} = seen.(String.replace(@forwarded, "192.0.2.7", "192.0.2.1"))
        {200, text} = seen.(@forwarded)
        assert String.ends_with?(text, "telemetry: #{expected}, #{expected}")
      end

      @tag options: @proxied, settings: [plug: &Seen.call_with_plug/1]
      test "RemoteIp in the endpoint changes nothing", %{seen: seen} do
        {200, text} = seen.(@forwarded)
        assert text =~ ~s|{{192, 0, 2, 7}, :https, "auth.example.com", 443} peer: 192.0.2.7|
      end

      @tag options: @proxied ++ [private_listeners: :all], settings: [http: [port: 0]]
      test "an endpoint with its own Unix socket is reached", %{seen: seen, upstream: upstream} do
        assert "unix:" <> _ = upstream
        {200, text} = seen.(@forwarded)
        assert text =~ ~s|{{192, 0, 2, 7}, :https, "auth.example.com", 443} |
      end
    end
  end

  # Cowboy's options are the user's as well.
  @tag adapter: Phoenix.Endpoint.Cowboy2Adapter
  @tag settings: [http: [protocol_options: [stream_handlers: [:cowboy_stream_h]]]]
  @tag options: [private_listeners: :all]
  test "configured stream handlers are kept", %{seen: seen} do
    {200, text} = seen.("")
    refute text =~ "telemetry"
  end

  @tag adapter: Bandit.PhoenixAdapter
  @tag settings: [
         http: [thousand_island_options: [transport_module: ThousandIsland.Transports.TCP]]
       ]
  @tag options: [private_listeners: :all]
  test "a configured transport is kept, on a loopback port", %{upstream: upstream} do
    assert "http://127.0.0.1:" <> _ = upstream
  end
end
