defmodule ExServiceMeshRouter.PrometheusTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  alias ExServiceMeshRouter.{FakePeers, ListenError, Metrics, Prometheus}

  @promtool System.find_executable("promtool")

  @doc "`%{name and labels => number}` of a scrape, which must be well-formed."
  def parse(text) do
    assert String.ends_with?(text, "\n")
    {samples, types} = text |> String.split("\n", trim: true) |> Enum.reduce({[], %{}}, &line/2)

    for {sample, _} <- samples do
      [name | _] = String.split(sample, "{")
      family = Enum.find_value(["_bucket", "_sum", "_count"], name, &histogram(name, &1, types))
      assert is_map_key(types, family), "#{name} has no TYPE"
    end

    assert length(samples) == length(Enum.uniq_by(samples, &elem(&1, 0)))
    Map.new(samples)
  end

  defp histogram(name, suffix, types) do
    family = String.replace_suffix(name, suffix, "")
    if types[family] == "histogram" and family != name, do: family
  end

  defp line("# HELP " <> _, acc), do: acc

  defp line("# TYPE " <> rest, {samples, types}) do
    [name, type] = String.split(rest, " ")
    refute is_map_key(types, name)
    assert type != "counter" or String.ends_with?(name, "_total")
    {samples, Map.put(types, name, type)}
  end

  defp line(line, {samples, types}) do
    assert [sample, number] =
             Regex.run(~r/^(\w+(?:\{.*\})?) ([0-9.]+)$/, line, capture: :all_but_first)

    {number, ""} = Float.parse(number)
    {[{sample, number} | samples], types}
  end

  test "has the counters of each service" do
    gateway = start_gateway(services: %{"a.local" => start_server("hello")})
    for _ <- 1..3, do: assert({200, _} = get(gateway, "a.local"))
    assert {404, body} = get(gateway, "nobody.local")
    eventually(0, fn -> ExServiceMeshRouter.stats(gateway).gateway.connections_open end)
    samples = gateway |> Prometheus.scrape() |> parse()

    assert samples[~s(mesh_requests_total{service="a.local",method="get"})] == 3
    assert samples[~s(mesh_responses_total{service="a.local",code="2xx"})] == 3
    assert samples[~s(mesh_responses_total{service="",code="4xx"})] == 1
    assert samples[~s(mesh_response_body_bytes_total{service="a.local"})] == 15
    assert samples[~s(mesh_response_body_bytes_total{service=""})] == byte_size(body)
    assert samples[~s(mesh_errors_total{service="",kind="unknown_service"})] == 1
    assert samples["mesh_connections_accepted_total"] == 4
    assert samples[~s(mesh_request_duration_seconds_count{service="a.local"})] == 3
    assert samples[~s(mesh_request_duration_seconds_bucket{service="a.local",le="+Inf"})] == 3
    assert samples[~s(mesh_request_duration_seconds_bucket{service="a.local",le="10"})] == 3

    assert Map.has_key?(
             samples,
             ~s(mesh_request_duration_seconds_bucket{service="a.local",le="0.0001"})
           )

    assert samples[~s(mesh_request_duration_seconds_sum{service="a.local"})] > 0
  end

  test "counts gRPC calls by status" do
    gateway = start_gateway(services: %{"a.local" => start_server("a")})
    stats = ExServiceMeshRouter.stats(gateway)
    stats = put_in(stats.services["a.local"].grpc.not_found, 2)
    text = stats |> Prometheus.render() |> IO.iodata_to_binary()
    assert text =~ ~S(mesh_grpc_calls_total{service="a.local",status="not_found"} 2)
    refute text =~ ~S(status="ok")
    parse(text)
  end

  test "escapes label values" do
    gateway = start_gateway(services: %{"a.local" => start_server("a")})
    stats = ExServiceMeshRouter.stats(gateway)
    stats = %{stats | services: %{"a\"b\\c\nd" => stats.services["a.local"]}}
    text = stats |> Prometheus.render() |> IO.iodata_to_binary()
    assert text =~ ~S(mesh_holds_total{service="a\"b\\c\nd"} 0)
    parse(text)
  end

  test "the dashboard uses only existing metrics" do
    options = [mesh: [ip: {127, 0, 0, 1}], services: %{"a.local" => start_server("a")}]
    gateway = start_gateway(options)
    assert {404, _} = get(gateway, "nobody.local")
    assert {200, _} = get(gateway, "a.local")
    # Only statuses that calls have had are there.
    called = put_in(ExServiceMeshRouter.stats(gateway).services["a.local"].grpc.ok, 1)
    text = IO.iodata_to_binary([Prometheus.scrape(gateway), Prometheus.render(called)])
    names = for [name] <- Regex.scan(~r/^mesh_\w+/m, text), do: name
    dashboard = File.read!(Path.expand("../../priv/grafana/ex_service_mesh_router.json", __DIR__))
    asked = for [name] <- Regex.scan(~r/\bmesh_\w+/, dashboard), do: name
    assert length(asked) > 20
    assert Enum.uniq(asked) -- names == []
  end

  test "has the states of other nodes, and zeros without one" do
    gateway = start_gateway(mesh: [ip: {127, 0, 0, 1}])
    samples = gateway |> Prometheus.scrape() |> parse()

    for state <- ~w(unknown up suspect lost unreachable),
        do: assert(samples[~s(mesh_peers{state="#{state}"})] == 0)

    FakePeers.put(
      gateway,
      for(n <- ~w(b c), do: %{node: "#{n}@h", services: [{"A", "#{n}.example"}]})
    )

    metric = fn name -> (gateway |> Prometheus.scrape() |> parse())[name] end

    # Both are greeted, and nothing listens there.
    eventually(2, 5_000, fn -> trunc(metric.(~s(mesh_peers{state="unreachable"})) || 0) end)
    assert metric.(~s(mesh_peers{state="unknown"})) == 0
    assert metric.(~s(mesh_peer_state{node="b@h",state="unreachable"})) == 1
    assert metric.(~s(mesh_peer_state{node="c@h",state="unreachable"})) == 1
    assert metric.(~s(mesh_peer_connections{node="b@h"})) == 0
    without = Prometheus.scrape(start_gateway())
    refute without =~ "mesh_peers"
    refute without =~ "mesh_from_peers"
  end

  test "is empty without a gateway" do
    assert Prometheus.scrape(NoSuchGateway) == ""
  end

  if @promtool do
    test "passes promtool's check" do
      gateway = start_gateway(services: %{"a.local" => start_server("a")})
      get(gateway, "a.local")
      path = Path.join(System.tmp_dir!(), "mesh-#{System.unique_integer([:positive])}.prom")
      on_exit(fn -> File.rm(path) end)
      File.write!(path, Prometheus.scrape(gateway))
      command = "#{@promtool} check metrics < #{path}"
      assert {"", 0} = System.cmd("sh", ["-c", command], stderr_to_stdout: true)
    end
  else
    IO.puts("not asking promtool: it is not installed (package prometheus)")
  end

  describe "/metrics" do
    test "is served at a port of its own, on loopback" do
      gateway = start_gateway(metrics: [port: 0])
      url = "http://127.0.0.1:#{Metrics.port(gateway)}"
      answer = RawClient.exchange(url, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
      assert answer =~ "content-type: text/plain; version=0.0.4"
      assert {200, "# HELP mesh_info" <> _} = answer(answer)
      assert {404, _} = url |> RawClient.exchange("GET / HTTP/1.0\r\n\r\n") |> answer()
      assert {405, ""} = url |> RawClient.exchange("POST /metrics HTTP/1.0\r\n\r\n") |> answer()
      assert {200, ""} = url |> RawClient.exchange("HEAD /metrics HTTP/1.0\r\n\r\n") |> answer()
    end

    test "is refused under a host name that another owner may have" do
      url = "http://127.0.0.1:#{[metrics: [port: 0]] |> start_gateway() |> Metrics.port()}"
      ask = &RawClient.exchange(url, "GET /metrics HTTP/1.1\r\n#{&1}\r\n")
      {:ok, machine} = :inet.gethostname()

      for host <-
            ["localhost:9568", "127.0.0.1", "[::1]:1", "a.localhost", "prometheus.internal"] ++
              ["#{machine}:9568"],
          do: assert({200, _} = answer(ask.("Host: #{host}\r\n")), host)

      for host <- ["evil.example.com", "a~b.evil.com:9568", "evil.com.", "a b", ""] do
        assert {403, body} = answer(ask.("Host: #{host}\r\n"))
        assert body =~ "Request metrics by an IP address"
      end

      assert {400, _} = answer(ask.("Host: localhost\r\nHost: evil.com\r\n"))
      # Whatever has no such field is no browser.
      assert {200, _} = url |> RawClient.exchange("GET /metrics HTTP/1.0\r\n\r\n") |> answer()
    end

    test "is served behind the gateway, under a host of its own" do
      gateway = start_gateway(metrics: [host: "metrics.internal"])
      assert {200, text} = get(gateway, "metrics.internal", "/metrics?x=y")
      assert parse(text)["mesh_connections_open"] == 1
    end

    test "reports a port in use at the start" do
      {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
      {:ok, port} = :inet.port(socket)
      options = [name: __MODULE__.Taken, port: 0, discover: false, metrics: [port: port]]
      Process.flag(:trap_exit, true)

      assert {:error, %ListenError{kind: :eaddrinuse, port: ^port}} =
               ExServiceMeshRouter.Supervisor.start_link(options)
    end
  end
end
