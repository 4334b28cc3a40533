defmodule ExServiceMeshRouter.System.LimitsTest do
  # Not async: the log is everybody's.
  use ExServiceMeshRouter.GatewayCase

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.Http.Request

  # Into all buffers on the way.
  @more_than_fits 50_000_000

  # Each row: what is limited, the configuration, what a client does, what it gets for it, where that
  # is counted, and at which level it is logged.
  @limits [
    {"limits.head_bytes", [limits: [head_bytes: 1_024]], :long_head, 431,
     [:gateway, :limits, :head_bytes], :info},
    {"limits.head_bytes", [limits: [head_bytes: 1_024]], :long_target, 414,
     [:gateway, :limits, :head_bytes], :info},
    {"limits.header_count", [limits: [header_count: 8]], :many_fields, 431,
     [:gateway, :limits, :header_count], :info},
    {"limits.body_bytes", [limits: [body_bytes: 10]], :long_body, 413,
     [:gateway, :limits, :body_bytes], :info},
    {"limits.body_bytes", [limits: [body_bytes: 10]], :long_chunks, 413,
     [:gateway, :limits, :body_bytes], :info},
    {"limits.connections", [limits: [connections: 1]], :second_connection, 503,
     [:gateway, :limits, :connections], :warning},
    {"limits.connections_per_client", [limits: [connections_per_client: 1]], :second_connection,
     503, [:gateway, :limits, :connections_per_client], :warning},
    {"limits.requests_per_connection", [limits: [requests_per_connection: 1]], :last_request, 200,
     [:gateway, :limits, :requests_per_connection], :info},
    {"limits.held_requests", [limits: [held_requests: 0], timeouts: [hold: 5_000]], :unreachable,
     502, [:gateway, :limits, :held_requests], :warning},
    {"timeouts.head", [timeouts: [head: 400]], :half_head, 408,
     [:gateway, :errors, :head_timeout], :info},
    {"timeouts.idle", [timeouts: [idle: 400]], :half_body, 408, [:total, :errors, :body_timeout],
     :info},
    {"timeouts.idle", [timeouts: [idle: 400], limits: [body_rate: 1_000_000]], :trickling_body,
     408, [:total, :errors, :body_timeout], :info},
    {"timeouts.idle", [timeouts: [idle: 400]], :reads_nothing, :cut_off,
     [:total, :errors, :reader_timeout], :info}
  ]

  for {key, options, does, gets, counter, level} <- @limits do
    test "#{key}: #{does} gets #{gets}, is counted and reported" do
      name = :"Elixir.LimitsTest.Gateway#{System.unique_integer([:positive])}"
      listen(name)
      options = Keyword.update(unquote(options), :timeouts, [drain: 0], &([drain: 0] ++ &1))

      log =
        capture_log(fn ->
          start_gateway([name: name, services: services(), workers: 1] ++ options)
          assert unquote(does)(url(name)) == unquote(gets)
          assert_receive {:reached, %{count: 1}, %{limit: limit}}, 5_000
          assert limit == String.replace_prefix(unquote(key), "limits.", "")
        end)

      assert log =~ "[#{unquote(level)}] gateway: #{unquote(key)} was reached once"
      eventually(1, fn -> get_in(ExServiceMeshRouter.stats(name), unquote(counter)) end)
    end
  end

  defp services do
    large = &{{200, [], String.duplicate("x", @more_than_fits)}, &1}

    %{
      "a.test" => start_server(&echo/1),
      "large.test" => start_server(large),
      "none.test" => "http://127.0.0.1:1"
    }
  end

  # Answers when the request is whole.
  defp echo(request) do
    {body, request} = Request.reduce_body(request, "", &(&2 <> &1))
    {{200, [], body}, request}
  end

  defp listen(name) do
    test = self()

    handler = fn _event, measurements, metadata, _config ->
      if metadata.gateway == name, do: send(test, {:reached, measurements, metadata})
    end

    event = [:ex_service_mesh_router, :limit, :reached]
    :ok = apply(:telemetry, :attach, [name, event, handler, nil])
    on_exit(fn -> apply(:telemetry, :detach, [name]) end)
  end

  defp long_head(url),
    do: status(url, "GET / HTTP/1.1\r\nHost: a.test\r\nX: #{long(2_000)}\r\n\r\n")

  defp long_target(url), do: status(url, "GET /#{long(2_000)} HTTP/1.1\r\nHost: a.test\r\n\r\n")

  defp many_fields(url) do
    status(url, "GET / HTTP/1.1\r\nHost: a.test\r\n#{String.duplicate("X: y\r\n", 9)}\r\n")
  end

  defp long_body(url), do: status(url, post("Content-Length: 11\r\n", ""))

  defp long_chunks(url),
    do: status(url, post("Transfer-Encoding: chunked\r\n", "b\r\n01234567890\r\n0\r\n\r\n"))

  defp second_connection(url) do
    first = RawClient.connect(url)
    RawClient.send(first, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    "HTTP/1.1 200" <> _ = RawClient.read_until(first, "\r\n\r\n")
    # It is told before it has asked for anything.
    status = status(url, "")
    :gen_tcp.close(first)
    status
  end

  defp last_request(url) do
    answer = RawClient.exchange(url, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert answer =~ ~r/^connection: close\r$/im
    status_of(answer)
  end

  defp unreachable(url), do: status(url, request("none.test"))

  defp half_head(url), do: status(url, "GET / HTTP/1.1\r\nHo")

  defp half_body(url), do: status(url, post("Content-Length: 10\r\n", "half"))

  # A byte now and then, which without a rate would do.
  defp trickling_body(url) do
    socket = RawClient.connect(url)
    RawClient.send(socket, post("Content-Length: 10000\r\n", ""))
    trickle(socket)
  end

  defp trickle(socket) do
    case :gen_tcp.recv(socket, 0, 20) do
      {:error, :timeout} ->
        _ = :gen_tcp.send(socket, "x")
        trickle(socket)

      {:ok, answer} ->
        status_of(answer)
    end
  end

  # Reads on once the gateway has had enough, and must be able to tell that this is not all.
  defp reads_nothing(url) do
    socket = RawClient.connect(url)
    RawClient.send(socket, request("large.test"))
    assert_receive {:reached, _, _} = reached, 5_000
    send(self(), reached)
    read = RawClient.read_to_end(socket)
    if byte_size(read) < @more_than_fits, do: :cut_off, else: :all_of_it
  end

  defp post(fields, body), do: "POST / HTTP/1.1\r\nHost: a.test\r\n#{fields}\r\n#{body}"

  defp long(bytes), do: String.duplicate("x", bytes)

  defp status(url, bytes), do: url |> RawClient.exchange(bytes) |> status_of()

  defp status_of("HTTP/1.1 " <> <<status::binary-size(3), _::binary>>),
    do: String.to_integer(status)
end
