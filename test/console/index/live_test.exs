defmodule ExServiceMeshRouter.Console.Index.LiveTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  alias ExServiceMeshRouter.Json
  alias ExServiceMeshRouter.Console.Top
  alias ExServiceMeshRouter.Console.Index.{Chart, Sample, Sampler, Words}

  defp page(gateway, accept) do
    text = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: #{accept}\r\nConnection: close\r\n\r\n"
    {200, body} = gateway |> url() |> RawClient.exchange(text) |> answer()
    body
  end

  defp json(gateway) do
    {:ok, report} = gateway |> page("application/json") |> Json.decode()
    report
  end

  defp open_stream(gateway) do
    socket = gateway |> url() |> RawClient.connect()
    RawClient.send(socket, "GET /.mesh/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    read = until(socket, "event: hello", "")
    assert read =~ "text/event-stream"
    socket
  end

  defp until(socket, text, read) do
    if read =~ text do
      read
    else
      {:ok, bytes} = :gen_tcp.recv(socket, 0, 5_000)
      until(socket, text, read <> bytes)
    end
  end

  test "the page has traffic, and errors in words" do
    services = %{
      "up.localhost" => start_server("up"),
      "gone.localhost" => "http://127.0.0.1:#{free_port()}"
    }

    gateway = start_gateway(index: true, services: services)
    for _ <- 1..5, do: get(gateway, "up.localhost")
    get(gateway, "gone.localhost")
    Sampler.sample(gateway)

    report = json(gateway)
    live = Map.new(report["services"], &{&1["name"], &1["live"]})
    assert %{"requests" => 5, "in_flight" => 0, "tunnels" => 0} = live["up.localhost"]
    assert %{"requests" => 1} = live["gone.localhost"]

    assert [%{"service" => "gone.localhost", "kind" => "connect", "count" => 1}] =
             report["errors"]

    assert [%{"line" => "route up.localhost -> up.localhost at 127.0.0.1:" <> _} | _] =
             report["history"]

    html = page(gateway, "text/html")
    assert html =~ "gone.localhost: it refused the connection"
    assert html =~ ~s|<div class="live" data-service="up.localhost">|

    text = report |> Top.render(:all, false) |> IO.iodata_to_binary()
    assert text =~ ~r/^up\.localhost +up .* 5$/m
    assert text =~ "gone.localhost: it refused the connection"
    assert text =~ "route up.localhost -> up.localhost at"
  end

  test "the last errors name the fault of a response, and the client does not see it" do
    bad = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi"
    gateway = start_gateway(index: true, services: %{"bad.localhost" => start_raw_server(bad)})
    assert {502, body} = get(gateway, "bad.localhost")
    refute body =~ "Length"
    Sampler.sample(gateway)
    words = "its response was not valid HTTP: there are two different Content-Length fields"
    assert [%{"kind" => "bad_response", "words" => ^words}] = json(gateway)["errors"]
    assert page(gateway, "text/html") =~ "bad.localhost: #{words}"
    stats = ExServiceMeshRouter.stats(gateway)
    assert stats.services["bad.localhost"].last_bad_response =~ "two different"
    assert stats.total.last_bad_response =~ "two different"
  end

  test "watchers get each sample and the changed parts" do
    url = start_server("later")
    gateway = start_gateway(index: true, services: %{"first.localhost" => url})
    socket = open_stream(gateway)
    get(gateway, "first.localhost")
    Sampler.sample(gateway)
    assert until(socket, "event: sample", "") =~ ~s|"first.localhost":{|
    ExServiceMeshRouter.put_service(gateway, "later.localhost", url)
    Sampler.sample(gateway)
    # A sample that was on its way may have brought one part before the other.
    read = until(socket, ~s|"service-list":|, "")
    read = until(socket, "later.localhost at 127.0.0.1", read)
    assert read =~ "event: parts"
    refute read =~ ~s|"finding-list":|
  end

  test "watchers do not delay a gateway that stops" do
    gateway = start_gateway(index: true, timeouts: [drain: 60_000])
    socket = open_stream(gateway)
    drain = Task.async(fn -> ExServiceMeshRouter.Gateway.drain(gateway) end)
    eventually(true, fn -> ExServiceMeshRouter.Gateway.draining?(gateway) end)
    Sampler.sample(gateway)
    assert Task.await(drain, 10_000) == :ok
    assert RawClient.read_to_end(socket) =~ "0\r\n\r\n"
  end

  test "times are measured to the head of a response, not to the end of a stream" do
    # Its head comes at once, and its body when the test says so.
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listener)
    services = %{"stream.localhost" => "http://127.0.0.1:#{port}"}
    gateway = start_gateway(index: true, services: services)
    client = gateway |> url() |> RawClient.connect()
    RawClient.send(client, request("stream.localhost"))
    {:ok, upstream} = :gen_tcp.accept(listener, 5_000)
    {:ok, _} = :gen_tcp.recv(upstream, 0, 5_000)
    :ok = :gen_tcp.send(upstream, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    assert until(client, "event-stream", "") =~ "200 OK"

    # The only thing that is measured here: a stream that has been open for longer than its head took.
    Process.sleep(600)
    :gen_tcp.close(upstream)
    RawClient.read_to_end(client)

    eventually(1, fn ->
      ExServiceMeshRouter.stats(gateway).services["stream.localhost"].latency.total.count
    end)

    Sampler.sample(gateway)
    assert [%{p50: p50, p99: p99} | _] = Sampler.now(gateway).live["stream.localhost"]
    assert p50 < 500 and p99 < 500
  end

  test "the number of watchers is limited" do
    gateway = start_gateway(index: true)

    for _ <- 1..32, do: open_stream(gateway)
    socket = gateway |> url() |> RawClient.connect()
    RawClient.send(socket, "GET /.mesh/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert until(socket, "0\r\n\r\n", "") =~ "retry: 30000"
  end

  test "requests for the index are in no sum over services" do
    gateway = start_gateway(index: true, services: %{"a.localhost" => start_server("a")})
    for _ <- 1..3, do: assert({200, _} = get(gateway, "a.localhost"))
    for _ <- 1..2, do: page(gateway, "text/html")
    assert {404, _} = get(gateway, "nobody.localhost")
    _stream = open_stream(gateway)

    # What had its end seen by the client may not be counted yet.
    eventually({3, 4}, fn ->
      %{services: services, total: total, gateway: own} = ExServiceMeshRouter.stats(gateway)
      assert %{"a.localhost" => service} = services
      assert map_size(services) == 1
      assert total.requests == service.requests
      assert total.in_flight == service.in_flight
      assert total.methods == service.methods
      assert total.response_body_bytes == service.response_body_bytes

      for {kind, histogram} <- service.latency,
          key <- [:count, :sum, :buckets],
          do: assert(total.latency[kind][key] == histogram[key])

      {service.latency.total.count, own.requests_unrouted}
    end)
  end

  describe "a sample" do
    # Milliseconds.
    @bounds for ms <- [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000],
                do: trunc(ms * 1_000_000)

    defp counters(buckets, requests, failed \\ 0) do
      %{
        requests: requests,
        responses_5xx: failed,
        in_flight: 1,
        tunnels_open: 2,
        errors: %{connect: failed, client_gone: 3 * failed},
        latency: %{first_byte: %{buckets: buckets, count: requests}}
      }
    end

    test "is the difference of two readings" do
      before = counters(List.duplicate(100, 15), 100)
      # 90 more between 1 and 2.5 ms, 10 between 25 and 50 ms.
      now =
        counters(
          List.duplicate(100, 4) ++ List.duplicate(190, 4) ++ List.duplicate(200, 7),
          200,
          10
        )

      sample = Sample.new(before, now, 2.0, @bounds)
      assert %{rate: 50.0, errors: 5.0, in_flight: 1, tunnels: 2, requests: 200} = sample
      assert sample.p50 >= 1.0 and sample.p50 <= 2.5
      assert sample.p99 >= 25.0 and sample.p99 <= 50.0

      assert [%{service: "a", kind: :connect, count: 10, words: "it refused the connection"}] =
               Sample.errors(%{"a" => before}, %{"a" => now}, DateTime.utc_now())
    end

    test "without requests has no times, and the first of a new service has all its requests" do
      idle = counters(List.duplicate(0, 15), 0)
      assert %{rate: rate, p50: nil, p99: nil} = Sample.new(idle, idle, 1.0, @bounds)
      assert rate == 0.0
      slow = counters(List.duplicate(0, 15), 3)
      assert %{rate: 3.0, p50: 10_000.0} = Sample.new(nil, slow, 1.0, @bounds)
    end

    test "every kind of error that the data plane counts has words" do
      gateway = start_gateway(services: %{"a.local" => "http://127.0.0.1:9"})
      %{services: %{"a.local" => %{errors: kinds}}} = ExServiceMeshRouter.stats(gateway)

      for {kind, _} <- kinds do
        assert Words.error(kind) != kind |> Atom.to_string() |> String.replace("_", " ")
      end
    end
  end

  test "a chart has gaps where there are no values" do
    samples = Enum.reverse([%{p50: 1.0}, %{p50: nil}, %{p50: 0.0}, %{p50: 2.0}])
    svg = samples |> Chart.svg([:p50]) |> IO.iodata_to_binary()
    assert svg =~ ~s|data-values="1.0 - 0.0 2.0"|
    assert svg =~ ~s|d="M116,14.0h0M118,27.0h0L119,1.0"|
  end
end
