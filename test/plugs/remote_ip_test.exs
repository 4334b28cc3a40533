defmodule ExServiceMeshRouter.Plugs.RemoteIpTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  alias ExServiceMeshRouter.RemoteIp
  alias ExServiceMeshRouter.Gateway.TrustedProxies
  alias ExServiceMeshRouter.Plugs.ForwardedReader

  # What Plug.Conn.get_peer_data/1 asks.
  defmodule Adapter do
    def get_peer_data(peer), do: peer
  end

  # An endpoint that answers with what the plug made of its connection.
  setup do
    handler = fn socket -> answer(socket, RemoteIp.init([])) end
    %{port: listen(handler)}
  end

  defp listen(handler, ip \\ {127, 0, 0, 1}) do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: ip])
    start_supervised!({Task, fn -> accept(listener, handler) end}, id: ip)
    {:ok, port} = :inet.port(listener)
    port
  end

  defp accept(listener, handler) do
    {:ok, socket} = :gen_tcp.accept(listener)
    handler.(socket)
    :gen_tcp.close(socket)
    accept(listener, handler)
  end

  defp answer(socket, options) do
    {:ok, {address, port}} = :inet.peername(socket)
    {:ok, head} = :gen_tcp.recv(socket, 0, 5_000)

    headers =
      for line <- head |> String.split("\r\n") |> tl(),
          [name, value] <- [String.split(line, ": ", parts: 2)],
          do: {String.downcase(name), value}

    conn = %{
      adapter: {Adapter, %{address: address, port: port, ssl_cert: nil}},
      req_headers: headers,
      remote_ip: address,
      scheme: :http,
      host: "as.it.came",
      port: 1
    }

    conn = RemoteIp.call(conn, options)
    body = inspect({conn.remote_ip, conn.scheme, conn.host, conn.port})
    :gen_tcp.send(socket, "HTTP/1.1 200 OK\r\ncontent-length: #{byte_size(body)}\r\n\r\n#{body}")
  end

  defp ask(url, fields) do
    request = "GET / HTTP/1.1\r\nHost: app.local:4000\r\nConnection: close\r\n#{fields}\r\n"
    {200, body} = url |> RawClient.exchange(request) |> answer()
    body
  end

  @spoofed "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n" <>
             "X-Forwarded-Host: evil\r\nX-Forwarded-Port: 666\r\n"

  defp gateway(port, options \\ []) do
    services = %{"app.local" => "http://127.0.0.1:#{port}"}
    url(start_gateway([services: services] ++ options))
  end

  test "takes the client's address from the gateway and not from the client", %{port: port} do
    assert ask(gateway(port), @spoofed) == ~s|{{127, 0, 0, 1}, :http, "app.local", 4000}|
  end

  test "ignores the fields of a request that did not come through the gateway", %{port: port} do
    # So that a gateway runs in this VM, as it does beside an endpoint.
    gateway(port)

    assert ask("http://127.0.0.1:#{port}", @spoofed) ==
             ~s|{{127, 0, 0, 1}, :http, "as.it.came", 1}|
  end

  # It sees the gateway as ::ffff:127.0.0.1.
  test "recognises the gateway on an endpoint that listens on IPv4 and IPv6" do
    port = listen(&answer(&1, RemoteIp.init([])), {0, 0, 0, 0, 0, 0, 0, 0})
    assert ask(gateway(port), @spoofed) == ~s|{{127, 0, 0, 1}, :http, "app.local", 4000}|
    # Other connections to it are not the gateway's.
    assert ask("http://127.0.0.1:#{port}", @spoofed) ==
             ~s|{{0, 0, 0, 0, 0, 65535, 32512, 1}, :http, "as.it.came", 1}|
  end

  test "takes the client that a trusted proxy names", %{port: port} do
    url = gateway(port, trusted_proxies: ["127.0.0.0/8", "10.0.0.0/8"])
    chain = String.replace(@spoofed, "6.6.6.6", "1.1.1.1, 203.0.113.7, 10.1.2.3")

    assert ask(url, chain) == ~s|{{203, 0, 113, 7}, :https, "evil", 666}|
  end

  test "a client behind a proxy cannot hide its address or become local", %{
    port: port
  } do
    url = gateway(port, trusted_proxies: ["127.0.0.0/8"])

    for {list, client} <- [
          {"garbage, 203.0.113.7", "{203, 0, 113, 7}"},
          {"garbage", "{0, 0, 0, 0}"},
          {"203.0.113.7:4711", "{203, 0, 113, 7}"},
          {"[2001:db8::7]:4711", "{8193, 3512, 0, 0, 0, 0, 0, 7}"}
        ] do
      assert ask(url, "X-Forwarded-For: #{list}\r\n") =~ "{#{client}, :http", list
    end
  end

  test "gateways that start at the same time keep the proxies of all" do
    proxies = for n <- 1..200, do: "198.51.100.#{n}"

    proxies
    |> Task.async_stream(&TrustedProxies.add([&1]), max_concurrency: 50)
    |> Stream.run()

    for proxy <- proxies do
      headers = [{"x-forwarded-for", "192.0.2.1, #{proxy}"}]
      assert ForwardedReader.client(headers) == {192, 0, 2, 1}, "#{proxy} is not trusted"
    end
  end

  describe "from_connect_info/1" do
    test "returns the peer on a connection that is not the gateway's" do
      peer = %{address: {127, 0, 0, 1}, port: 1, ssl_cert: nil}
      info = %{peer_data: peer, x_headers: [{"x-forwarded-for", "6.6.6.6"}]}

      assert RemoteIp.from_connect_info(info) == {127, 0, 0, 1}
    end

    for {server, address, port} <- [{"Bandit", {:local, ""}, 0}, {"Cowboy", :local, ""}] do
      test "reads the field on a Unix socket of #{server}" do
        peer = %{address: unquote(address), port: unquote(port), ssl_cert: nil}
        info = %{peer_data: peer, x_headers: [{"x-forwarded-for", "2001:db8::7"}]}

        assert RemoteIp.from_connect_info(info) == {0x2001, 0xDB8, 0, 0, 0, 0, 0, 7}
        assert RemoteIp.from_connect_info(%{info | x_headers: []}) == nil
      end
    end
  end

  test "refuses unknown options" do
    assert RemoteIp.init(only: [:remote_ip]) == [:remote_ip]
    assert_raise ArgumentError, ~r/takes `only:/, fn -> RemoteIp.init(only: [:ip]) end
    assert_raise ArgumentError, ~r/takes `only:/, fn -> RemoteIp.init(onyl: []) end
  end
end
