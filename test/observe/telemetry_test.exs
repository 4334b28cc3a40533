defmodule ExServiceMeshRouter.TelemetryTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.Telemetry

  # Everything that one gateway says, sent to the test.
  defp listen(name) do
    test = self()

    for %{event: event} <- Telemetry.events() do
      id = {__MODULE__, name, event}

      handler = fn event, measurements, metadata, _config ->
        if metadata.gateway == name, do: send(test, {:event, event, measurements, metadata})
      end

      :ok = apply(:telemetry, :attach, [id, event, handler, nil])
      on_exit(fn -> apply(:telemetry, :detach, [id]) end)
    end
  end

  defp start(options) do
    name = :"Elixir.TelemetryTest.Gateway#{System.unique_integer([:positive])}"
    listen(name)
    {name, start_gateway([name: name] ++ options)}
  end

  # The event, once its keys have been compared with the catalogue.
  defp event(event) do
    event = [:ex_service_mesh_router | event]
    assert_receive {:event, ^event, measurements, metadata}, 5_000
    entry = Enum.find(Telemetry.events(), &(&1.event == event))
    assert Map.keys(metadata) -- entry.metadata == []
    assert entry.metadata -- Map.keys(metadata) == []
    assert Map.keys(measurements) -- entry.measurements == []
    {measurements, metadata}
  end

  test "gateway, worker and route events have the keys of the catalogue" do
    capture_log(fn ->
      {name, gateway} = start(services: %{"a.local" => start_server("a")}, workers: 1)
      {_, metadata} = event([:gateway, :start])
      assert %{workers: 1, addresses: [{"127.0.0.1", _port}]} = metadata
      assert {_, %{worker: 0}} = event([:worker, :start])
      assert {_, %{host: "a.local", service: "a.local"}} = event([:route, :added])

      :ok = ExServiceMeshRouter.put_service(gateway, "b.local", "http://127.0.0.1:1")
      assert {_, %{upstreams: ["http://127.0.0.1:1"]}} = event([:route, :added])
      assert {502, _} = get(gateway, "b.local")
      assert {%{count: 1}, %{service: "b.local"}} = event([:upstream, :down])
      :ok = ExServiceMeshRouter.delete_service(gateway, "b.local")
      assert {_, %{host: "b.local"}} = event([:route, :removed])

      stop_supervised!(name)
      assert {%{duration: duration}, _} = event([:worker, :stop])
      assert duration > 0
      assert {_, %{reason: :shutdown}} = event([:gateway, :stop])
    end)
  end

  test "a limit that is reached gives at most one event a second" do
    capture_log(fn ->
      {_name, gateway} = start(limits: [head_bytes: 1_024])

      for _ <- 1..5 do
        long = "GET / HTTP/1.1\r\nHost: a\r\nX: #{String.duplicate("x", 2_000)}\r\n\r\n"
        assert {431, _} = gateway |> url() |> RawClient.exchange(long) |> answer()
      end

      assert {_, %{limit: "head_bytes"}} = event([:limit, :reached])
    end)
  end

  test "a sampled request has an event with all measurements and metadata" do
    {_name, gateway} =
      start(services: %{"a.local" => start_server("hello")}, telemetry: [sample: 1.0])

    id = "0123456789-0123456789"
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"

    request =
      "POST /path?secret=1 HTTP/1.1\r\nHost: t.a.local\r\nContent-Length: 3\r\n" <>
        "User-Agent: me\r\nX-Request-Id: #{id}\r\nTraceparent: 00-#{trace}-00f067aa0ba902b7-01\r\n" <>
        "Connection: close\r\n\r\nabc"

    assert {200, "hello"} = gateway |> url() |> RawClient.exchange(request) |> answer()
    {measurements, metadata} = event([:request, :stop])

    assert %{
             service: "a.local",
             host: "t.a.local",
             method: "POST",
             path: "/path",
             status: 200,
             http_version: "1.1",
             client: "127.0.0.1",
             user_agent: "me",
             request_id: ^id,
             trace_id: ^trace,
             error: nil,
             side: nil,
             reason: nil,
             hop: nil,
             grpc_status: nil
           } = metadata

    assert %{request_bytes: 3, response_bytes: 5} = measurements
    assert measurements.duration >= measurements.first_byte_duration
    assert measurements.duration >= measurements.gateway_duration
    assert System.convert_time_unit(measurements.duration, :native, :second) < 5

    assert {404, _} = get(gateway, "nobody.local")
    assert {measurements, metadata} = event([:request, :stop])
    assert %{status: 404, service: nil, error: :unknown_service, side: :downstream} = metadata
    refute Map.has_key?(measurements, :first_byte_duration)
  end

  test "there are no request events without a sample" do
    {name, gateway} = start(services: %{"a.local" => start_server("a")})
    assert {200, "a"} = get(gateway, "a.local")
    # What was to be said has been said when it has stopped.
    stop_supervised!(name)
    event([:gateway, :stop])
    refute_received {:event, [_, :request, :stop], _, _}
  end
end
