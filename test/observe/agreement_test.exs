defmodule ExServiceMeshRouter.AgreementTest do
  # Whatever is asked, statistics, Prometheus, telemetry and access log say the same as the clients
  # do, to the last request. MESH_REQUESTS=100000 makes it a long afternoon.
  use ExServiceMeshRouter.GatewayCase

  alias ExServiceMeshRouter.{Gateway, Json, Native, Registry}

  @requests String.to_integer(System.get_env("MESH_REQUESTS", "3000"))
  @clients 8
  @moduletag timeout: :infinity

  # What a client does, how many requests that is, and the status that each is answered with.
  # nil: it does not stay for the answer.
  @kinds [
    ok: {1, 200},
    three: {3, 200},
    upload: {1, 200},
    missing: {1, 404},
    head: {1, 200},
    refused: {1, 502},
    nobody: {1, 404},
    malformed: {1, 400},
    cut: {1, 200},
    gone: {1, nil}
  ]

  test "statistics, metrics, log and telemetry agree with the clients' counts" do
    log = Path.join(System.tmp_dir!(), "mesh-agree-#{System.unique_integer([:positive])}.log")
    on_exit(fn -> File.rm(log) end)
    events = :ets.new(:events, [:public, write_concurrency: true])
    id = {__MODULE__, make_ref()}
    handler = &__MODULE__.count/4

    :ok =
      apply(:telemetry, :attach, [id, [:ex_service_mesh_router, :request, :stop], handler, events])

    on_exit(fn -> apply(:telemetry, :detach, [id]) end)

    gateway =
      start_gateway(
        services: %{
          "ok.local" => start_server(&endpoint/1),
          "dead.local" => "http://127.0.0.1:1",
          "cut.local" => cutting_server()
        },
        telemetry: [sample: 1.0],
        access_log: [format: :json, to: log],
        limits: [connections: :infinity]
      )

    url = url(gateway)
    started = System.monotonic_time(:millisecond)

    done =
      1..@clients
      |> Task.async_stream(&client(&1, url, div(@requests, @clients)), timeout: :infinity)
      |> Enum.flat_map(fn {:ok, done} -> done end)

    took = System.monotonic_time(:millisecond) - started
    eventually({0, 0}, 10_000, fn -> under_way(gateway) end)
    expected = expected(done)
    eventually(expected.requests, 60_000, fn -> seen(events) + lost(gateway) end)
    stats = ExServiceMeshRouter.stats(gateway)
    metrics = ExServiceMeshRouter.Prometheus.scrape(gateway)
    stop_supervised!(gateway)

    assert from_stats(stats) == expected
    assert from_metrics(metrics) == Map.delete(expected, :client_gone)
    assert from_records(log |> File.stream!() |> Stream.map(&from_json/1)) == expected

    # A machine that is busy with something else may drop some, and says how many.
    lost = stats.gateway.records_lost
    seen = :ets.foldl(fn {row, n}, all -> List.duplicate(row, n) ++ all end, [], events)
    if lost == 0, do: assert(from_records(seen) == expected)

    if @requests > 10_000,
      do: IO.puts("#{expected.requests} requests in #{took} ms agree; #{lost} events dropped")
  end

  # Two gateways of one VM, which know each other as two nodes do. The client's has no such endpoint.
  defp pair([for_sender, for_receiver]) do
    sender = start_gateway(for_sender)
    local = %{"hop.local" => start_server(&endpoint/1)}
    receiver = start_gateway([services: local] ++ for_receiver)
    opened = for gateway <- [sender, receiver], do: {gateway, open_mesh(gateway)}

    for {gateway, other} <- [{sender, receiver}, {receiver, sender}] do
      %{key: key, addresses: addresses} = Map.new(opened)[other]
      peer = %{id: inspect(other), name: "#{inspect(other)}@host", key: key, addresses: addresses}
      :ok = Native.put_peers(Gateway.ref(gateway), [peer])
    end

    offer = %{name: "hop.local", hosts: ["hop.local"], since: DateTime.utc_now()}
    peer = %{id: inspect(receiver), node: "b@host", state: :serving, services: [offer]}
    :ok = Registry.put_peers(sender, [peer])
    {sender, receiver}
  end

  defp open_mesh(gateway) do
    config = %{ips: ["127.0.0.1"], port: 0, prefer: nil}
    {:ok, opened} = Native.open_mesh(Gateway.ref(gateway), config)
    opened
  end

  test "a request that another node serves is counted once in a sum over both" do
    events = :ets.new(:events, [:public])
    id = {__MODULE__, make_ref()}
    event = [:ex_service_mesh_router, :request, :stop]
    :ok = apply(:telemetry, :attach, [id, event, &__MODULE__.count_hop/4, events])
    on_exit(fn -> apply(:telemetry, :detach, [id]) end)

    logs =
      for name <- ~w(out in),
          do:
            Path.join(System.tmp_dir!(), "mesh-#{name}-#{System.unique_integer([:positive])}.log")

    on_exit(fn -> Enum.each(logs, &File.rm/1) end)

    {sender, receiver} =
      pair(for log <- logs, do: [telemetry: [sample: 1.0], access_log: [format: :json, to: log]])

    for _ <- 1..20, do: assert({200, _} = get(sender, "hop.local", "/10"))
    for _ <- 1..5, do: assert({404, _} = get(sender, "hop.local", "/missing"))
    for _ <- 1..3, do: assert({200, _} = get(receiver, "hop.local", "/10"))

    eventually([{0, 0}, {0, 0}], 5_000, fn ->
      for gateway <- [sender, receiver], do: under_way(gateway)
    end)

    eventually(%{in: 25, out: 25, nil: 3}, 5_000, fn -> events |> :ets.tab2list() |> Map.new() end)

    [out, into] = for gateway <- [sender, receiver], do: ExServiceMeshRouter.stats(gateway)
    assert %{requests: 25, sent_to_peers: 25} = out.services["hop.local"]
    assert %{requests: 3, sent_to_peers: 0} = into.services["hop.local"]
    assert out.from_peers == %{}

    assert %{requests: 25, responses_2xx: 20, responses_4xx: 5, in_flight: 0} =
             into.from_peers["hop.local"]

    assert out.total.requests + into.total.requests == 28

    metrics =
      for gateway <- [sender, receiver],
          into: "",
          do: ExServiceMeshRouter.Prometheus.scrape(gateway)

    assert sum(metrics, ~r/^mesh_requests_total\{/) == 28
    assert sum(metrics, ~r/^mesh_responses_total\{/) == 28
    assert sum(metrics, ~r/^mesh_request_duration_seconds_count/) == 28
    assert sum(metrics, ~r/^mesh_sent_to_peers_total\{/) == 25
    assert sum(metrics, ~r/^mesh_from_peers_requests_total\{/) == 25
    assert sum(metrics, ~r/^mesh_from_peers_responses_total.*"4xx"/) == 5
    assert sum(metrics, ~r/^mesh_from_peers_request_duration_seconds_count/) == 25
    assert sum(metrics, ~r/^mesh_from_peers_requests_in_flight/) == 0

    # The log of the one that the client has asked has the line.
    for gateway <- [sender, receiver], do: stop_supervised!(gateway)
    assert for(log <- logs, do: log |> File.stream!() |> Enum.count()) == [25, 3]
  end

  @doc false
  def count_hop(_event, _measurements, %{service: "hop.local", hop: hop}, events),
    do: :ets.update_counter(events, hop, 1, {hop, 0})

  def count_hop(_event, _measurements, _metadata, _events), do: :ok

  @doc false
  def count(_event, measurements, metadata, events) do
    row =
      {metadata.status, metadata.error, measurements.request_bytes, measurements.response_bytes}

    :ets.update_counter(events, row, 1, {row, 0})
  end

  defp seen(events), do: :ets.foldl(fn {_row, n}, sum -> sum + n end, 0, events)
  defp lost(gateway), do: ExServiceMeshRouter.stats(gateway).gateway.records_lost

  defp under_way(gateway) do
    %{gateway: %{connections_open: open}, total: %{in_flight: in_flight}} =
      ExServiceMeshRouter.stats(gateway)

    {open, in_flight}
  end

  # One client's work: `{kind, bytes of the answers' bodies}` for each thing done.
  defp client(number, url, requests) do
    :rand.seed(:exsss, number)

    Stream.repeatedly(fn -> Enum.random(Keyword.keys(@kinds)) end)
    |> Enum.reduce_while({[], 0}, fn kind, {done, count} ->
      if count >= requests do
        {:halt, {done, count}}
      else
        {each, _status} = @kinds[kind]
        {:cont, {[{kind, act(kind, url)} | done], count + each}}
      end
    end)
    |> elem(0)
  end

  defp act(:ok, url), do: ask(url, request("t.ok.local", "/10"))
  defp act(:missing, url), do: ask(url, request("ok.local", "/missing"))
  defp act(:refused, url), do: ask(url, request("dead.local"))
  defp act(:nobody, url), do: ask(url, request("nobody.local"))
  defp act(:malformed, url), do: ask(url, "GET / HTTP/1.1\r\nHost : a\r\n\r\n")

  defp act(:three, url) do
    first = "GET /5 HTTP/1.1\r\nHost: ok.local\r\n\r\n"
    ask(url, [first, first, request("ok.local", "/7")], 3)
  end

  defp act(:head, url),
    do: ask(url, "HEAD /9 HTTP/1.1\r\nHost: ok.local\r\nConnection: close\r\n\r\n")

  defp act(:upload, url) do
    head =
      "POST /20 HTTP/1.1\r\nHost: ok.local\r\nContent-Length: 2000\r\nConnection: close\r\n\r\n"

    ask(url, [head, String.duplicate("u", 2_000)])
  end

  defp act(:cut, url) do
    # The reset that tells of the cut may take the rest of the answer with it.
    socket = RawClient.connect(url)
    RawClient.send(socket, request("cut.local"))
    read_all(socket)
    4
  end

  defp act(:gone, url) do
    socket = RawClient.connect(url)
    :ok = :inet.setopts(socket, linger: {true, 0})
    me = self() |> :erlang.pid_to_list() |> to_string() |> URI.encode_www_form()
    RawClient.send(socket, request("ok.local", "/wait?" <> me))
    assert_receive :arrived, 10_000
    :gen_tcp.close(socket)
    0
  end

  defp ask(url, request, answers \\ 1) do
    {head_and_bodies, :closed} = url |> RawClient.connect() |> exchange(request)
    assert length(Regex.scan(~r"HTTP/1.1 \d\d\d ", head_and_bodies)) == answers

    head_and_bodies
    |> String.split(~r/HTTP\/1.1 \d\d\d /, trim: true)
    |> Enum.map(fn answer -> answer |> String.split("\r\n\r\n", parts: 2) |> List.last() end)
    |> Enum.map(&byte_size/1)
    |> Enum.sum()
  end

  defp exchange(socket, request) do
    RawClient.send(socket, request)
    read_all(socket)
  end

  defp read_all(socket, read \\ "") do
    case :gen_tcp.recv(socket, 0, 10_000) do
      {:ok, bytes} -> read_all(socket, read <> bytes)
      {:error, why} -> {read, why}
    end
  end

  defp endpoint(%{path: "/missing"} = request), do: {{404, [], "no"}, request}

  defp endpoint(%{path: "/wait"} = request) do
    [_path, client] = String.split(request.target, "?")
    client |> URI.decode_www_form() |> to_charlist() |> :erlang.list_to_pid() |> send(:arrived)

    receive do
    after
      10_000 -> {{200, [], ""}, request}
    end
  end

  defp endpoint(%{path: "/" <> size} = request),
    do: {{200, [], String.duplicate("a", String.to_integer(size))}, request}

  # Promises ten bytes, sends four, and is gone.
  defp cutting_server do
    {:ok, socket} =
      :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}, backlog: 1_024])

    {:ok, port} = :inet.port(socket)
    start_supervised!({Task, fn -> cut(socket) end})
    "http://127.0.0.1:#{port}"
  end

  defp cut(socket) do
    {:ok, client} = :gen_tcp.accept(socket)
    {:ok, _request} = :gen_tcp.recv(client, 0)
    :gen_tcp.send(client, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour")
    :gen_tcp.close(client)
    cut(socket)
  end

  # The same figures from everywhere.

  defp expected(done) do
    sum = fn kinds ->
      done
      |> Enum.filter(&(elem(&1, 0) in kinds))
      |> Enum.map(&elem(@kinds[elem(&1, 0)], 0))
      |> Enum.sum()
    end

    of_status = fn status -> sum.(for {kind, {_, ^status}} <- @kinds, do: kind) end

    %{
      requests: sum.(Keyword.keys(@kinds)),
      ok: of_status.(200),
      client_errors: of_status.(404) + of_status.(400),
      server_errors: of_status.(502),
      client_gone: sum.([:gone]),
      upstream_closed: sum.([:cut]),
      connect: sum.([:refused]),
      unknown_service: sum.([:nobody]),
      bad_request: sum.([:malformed]),
      request_bytes: 2_000 * sum.([:upload]),
      response_bytes: done |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    }
  end

  defp from_stats(%{gateway: gateway, total: total}) do
    errors = fn kind -> total.errors[kind] + gateway.errors[kind] end
    assert total.latency.total.count == total.requests
    assert total.methods |> Map.values() |> Enum.sum() == total.requests

    %{
      requests: total.requests + gateway.requests_refused + gateway.requests_unrouted,
      ok: total.responses_2xx,
      client_errors: total.responses_4xx + gateway.responses_4xx,
      server_errors: total.responses_5xx + gateway.responses_5xx,
      client_gone: errors.(:client_gone),
      upstream_closed: errors.(:upstream_closed),
      connect: errors.(:connect),
      unknown_service: errors.(:unknown_service),
      bad_request: errors.(:bad_request),
      request_bytes: total.request_body_bytes,
      response_bytes: total.response_body_bytes + gateway.response_body_bytes
    }
  end

  defp from_metrics(text) do
    sum = &sum(text, &1)
    kind = fn kind -> sum.(~r/^mesh_errors_total.*kind="#{kind}"/) end
    other = sum.(~r/^mesh_requests_(refused|unrouted)_total/)

    %{
      requests: sum.(~r/^mesh_requests_total/) + other,
      ok: sum.(~r/^mesh_responses_total.*"2xx"/),
      client_errors: sum.(~r/^mesh_responses_total.*"4xx"/),
      server_errors: sum.(~r/^mesh_responses_total.*"5xx"/),
      upstream_closed: kind.("upstream_closed"),
      connect: kind.("connect"),
      unknown_service: kind.("unknown_service"),
      bad_request: kind.("bad_request"),
      request_bytes: sum.(~r/^mesh_request_body_bytes_total/),
      response_bytes: sum.(~r/^mesh_response_body_bytes_total/)
    }
  end

  defp sum(text, pattern) do
    text
    |> String.split("\n")
    |> Enum.filter(&(&1 =~ pattern))
    |> Enum.map(&(&1 |> String.split(" ") |> List.last() |> String.to_integer()))
    |> Enum.sum()
  end

  # {status, error, bytes in, bytes out}
  defp from_records(rows) do
    rows = Enum.to_list(rows)
    status = fn class -> Enum.count(rows, &(div(elem(&1, 0) || 0, 100) == class)) end
    error = fn kind -> Enum.count(rows, &(elem(&1, 1) == kind)) end

    %{
      requests: length(rows),
      ok: status.(2),
      client_errors: status.(4),
      server_errors: status.(5),
      client_gone: error.(:client_gone),
      upstream_closed: error.(:upstream_closed),
      connect: error.(:connect),
      unknown_service: error.(:unknown_service),
      bad_request: error.(:bad_request),
      request_bytes: rows |> Enum.map(&elem(&1, 2)) |> Enum.sum(),
      response_bytes: rows |> Enum.map(&elem(&1, 3)) |> Enum.sum()
    }
  end

  defp from_json(line) do
    {:ok, row} = Json.decode(line)
    error = row["error"] && String.to_existing_atom(row["error"])
    {row["status"], error, row["bytes_in"], row["bytes_out"]}
  end
end
