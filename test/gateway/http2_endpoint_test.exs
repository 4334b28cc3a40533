defmodule ExServiceMeshRouter.Gateway.Http2EndpointTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  defmodule Listener do
    # Sends log lines to a process, which can wait for one.
    def log(%{msg: {:string, line}}, %{config: pid}), do: send(pid, {:log, to_string(line)})
    def log(_event, _handler), do: :ok
  end

  @preface "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
  @data 0
  @headers 1
  @settings 4

  # HTTP/2 (RFC 9113), as far as one GET after another needs it.
  defp start_http2_server(address) do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, ip: address, active: false])

    start_supervised!(
      {Task, fn -> accept(listener) end},
      id: make_ref()
    )

    listener
  end

  defp accept(listener) do
    # Fails when the test has ended.
    with {:ok, socket} <- :gen_tcp.accept(listener) do
      {:ok, @preface} = :gen_tcp.recv(socket, byte_size(@preface))
      send_frame(socket, @settings, 0, 0, "")
      serve(socket)
      accept(listener)
    end
  end

  defp serve(socket) do
    with {:ok, <<length::24, type, _flags, _::1, stream::31>>} <- :gen_tcp.recv(socket, 9),
         {:ok, _payload} <- payload(socket, length) do
      # An indexed field: status 200 (RFC 7541 appendix A).
      if type == @headers do
        send_frame(socket, @headers, 4, stream, <<0x88>>)
        send_frame(socket, @data, 1, stream, "by HTTP/2, stream #{stream}")
      end

      serve(socket)
    end
  end

  defp payload(_socket, 0), do: {:ok, ""}
  defp payload(socket, length), do: :gen_tcp.recv(socket, length)

  defp send_frame(socket, type, flags, stream, payload) do
    frame = <<byte_size(payload)::24, type, flags, stream::32, payload::binary>>
    :ok = :gen_tcp.send(socket, frame)
  end

  defp h2c(listener) do
    {:ok, port} = :inet.port(listener)
    "h2c://127.0.0.1:#{port}"
  end

  test "a service may speak HTTP/2, at a port and at a Unix socket" do
    url = h2c(start_http2_server({127, 0, 0, 1}))
    path = Path.join(System.tmp_dir!(), "h2c-#{System.unique_integer([:positive])}.sock")
    on_exit(fn -> File.rm(path) end)
    start_http2_server({:local, path})
    gateway = start_gateway(services: %{"grpc.local" => url})
    :ok = ExServiceMeshRouter.put_service(gateway, "unix.local", "h2c+unix:" <> path)

    # One connection serves all requests.
    assert {200, body} = get(gateway, "grpc.local")
    assert body =~ "by HTTP/2, stream 1"
    assert {200, body} = get(gateway, "grpc.local")
    assert body =~ "by HTTP/2, stream 3"
    assert {200, body} = get(gateway, "unix.local")
    assert body =~ "by HTTP/2, stream 1"

    upstreams =
      for %{name: name, upstreams: upstreams} <- ExServiceMeshRouter.services(gateway),
          do: {name, upstreams}

    assert {"grpc.local", [url]} in upstreams
    assert {"unix.local", ["h2c+unix:" <> path]} in upstreams
  end

  @tag :capture_log
  test "an endpoint that does not speak HTTP/2 is named in the log" do
    "http://" <> address = start_server("by HTTP/1.1")
    gateway = start_gateway(services: %{"grpc.local" => "h2c://" <> address})

    handler = :"#{__MODULE__}.#{address}"
    :ok = :logger.add_handler(handler, Listener, %{config: self()})
    on_exit(fn -> :logger.remove_handler(handler) end)

    assert {502, body} = get(gateway, "grpc.local")
    assert body =~ "does not speak HTTP/2"

    assert log_line("h2c://#{address}") =~
             ~r/ (answers in HTTP\/1.1|closes the connection).* use "http:/
  end

  defp log_line(text) do
    assert_receive {:log, line}, 5_000
    if line =~ text, do: line, else: log_line(text)
  end
end
