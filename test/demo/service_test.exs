defmodule Demo.ServiceTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Http.Server
  alias ExServiceMeshRouter.{Json, RawClient}

  setup do
    service = %{name: "auth", host: "auth.localhost", peers: ["auth.localhost"]}
    server = start_supervised!({Server, handler: &Demo.Service.call(&1, service)})
    %{url: Server.url(server)}
  end

  defp get(url, path, host) do
    RawClient.exchange(url, "GET #{path} HTTP/1.1\r\nHost: #{host}\r\nConnection: close\r\n\r\n")
  end

  test "the page names the service and the tenant", %{url: url} do
    page = get(url, "/", "tenant1.auth.localhost:4000")
    assert page =~ "content-type: text/html; charset=utf-8\r\n"
    assert page =~ ~s(<span id="service">auth</span>)
    assert page =~ ~s(<b id="tenant">tenant1</b>)

    assert get(url, "/", "auth.localhost") =~ ~s(No <b id="tenant">tenant</b>)
  end

  test "on several nodes the page names the node" do
    service = %{name: "auth", host: "auth.localhost", peers: [], node: 2}
    server = start_supervised!({Server, handler: &Demo.Service.call(&1, service)}, id: :of_node)
    page = get(Server.url(server), "/", "auth.localhost")
    assert page =~ ~s(Served by <b id="node">node 2</b>)
  end

  test "the page shows what a client sent as text only", %{url: url} do
    page = get(url, "/", "<script>alert('1')</script>")
    refute page =~ "alert('1')"
    assert page =~ "&lt;script&gt;alert(&#39;1&#39;)"
  end

  test "the headers are told as they came, repetitions included", %{url: url} do
    answer =
      RawClient.exchange(
        url,
        "GET /headers?a=b HTTP/1.1\r\nHost: t.auth.localhost\r\nX-A: \"\\\t\r\nx-a: \xFC\r\n" <>
          "Connection: close\r\n\r\n"
      )

    assert answer =~ "content-type: application/json\r\n"

    assert {:ok, json} = answer |> String.split("\r\n\r\n") |> List.last() |> Json.decode()
    assert %{"service" => "auth", "tenant" => "t"} = json
    assert %{"method" => "GET", "target" => "/headers?a=b", "headers" => headers} = json

    fields = [
      ["host", "t.auth.localhost"],
      ["x-a", "\"\\"],
      ["x-a", "ü"],
      ["connection", "close"]
    ]

    assert headers == fields
  end

  test "an upload is counted and hashed, whatever its framing", %{url: url} do
    body = :crypto.strong_rand_bytes(3_000_000)
    sha256 = Base.encode16(:crypto.hash(:sha256, body), case: :lower)
    answer = ~s({"bytes":3000000,"service":"auth","sha256":"#{sha256}"}\n)
    head = "PUT /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"

    counted = RawClient.exchange(url, [head, "Content-Length: 3000000\r\n\r\n", body])
    assert String.ends_with?(counted, answer)

    <<first::binary-size(1_000_001), second::binary>> = body
    chunks = for chunk <- [first, second, ""], do: [chunk_size(chunk), chunk, "\r\n"]
    chunked = RawClient.exchange(url, [head, "Transfer-Encoding: chunked\r\n\r\n", chunks])
    assert String.ends_with?(chunked, answer)
  end

  defp chunk_size(chunk), do: [Integer.to_string(byte_size(chunk), 16), "\r\n"]

  test "events start at once", %{url: url} do
    socket = RawClient.connect(url)
    RawClient.send(socket, "GET /sse HTTP/1.1\r\nHost: a\r\n\r\n")
    events = RawClient.read_until(socket, "\n\n\r\n")
    assert events =~ "content-type: text/event-stream\r\n"
    assert events =~ "data: auth says it is "
  end

  test "what is not there is 404, what is not meant is 405", %{url: url} do
    assert get(url, "/nowhere", "a") =~ ~r/\AHTTP\/1.1 404 /
    assert get(url, "/upload", "a") =~ ~r/\AHTTP\/1.1 405 .*\r\nallow: PUT, POST\r\n/s

    post = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert RawClient.exchange(url, post) =~ ~r/\AHTTP\/1.1 405 .*\r\nallow: GET, HEAD\r\n/s
  end
end
