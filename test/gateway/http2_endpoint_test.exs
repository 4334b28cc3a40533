defmodule ExServiceMeshRouter.Gateway.Http2EndpointTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExServiceMeshRouter.EndpointStandIn

  defmodule Listener do
    # Sends log lines to a process, which can wait for one.
    def log(%{msg: {:string, line}}, %{config: pid}), do: send(pid, {:log, to_string(line)})
    def log(_event, _handler), do: :ok
  end

  defmodule Server do
    @moduledoc false
    # HTTP/2 (RFC 9113), as far as one GET after another needs it.
    use GenServer

    @preface "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    @data 0
    @headers 1
    @settings 4

    def start_link(options), do: GenServer.start_link(__MODULE__, options)

    # As an adapter of Phoenix.
    def child_specs(endpoint, config) do
      for options <- [config[:http]], options do
        options = [ip: Keyword.get(options, :ip, {127, 0, 0, 1})]
        Supervisor.child_spec({__MODULE__, options}, id: {endpoint, :http})
      end
    end

    @impl true
    def init(options) do
      {:ok, listener} = :gen_tcp.listen(0, [:binary, ip: options[:ip], active: false])
      spawn_link(fn -> accept(listener) end)
      {:ok, listener}
    end

    @impl true
    def handle_call(:url, _from, listener) do
      case :inet.sockname(listener) do
        {:ok, {:local, path}} -> {:reply, "unix:" <> path, listener}
        {:ok, {ip, port}} -> {:reply, "http://#{:inet.ntoa(ip)}:#{port}", listener}
      end
    end

    defp accept(listener) do
      # Fails when the test has ended.
      with {:ok, socket} <- :gen_tcp.accept(listener) do
        spawn_link(fn -> begin(socket) end)
        accept(listener)
      end
    end

    defp begin(socket) do
      {:ok, @preface} = :gen_tcp.recv(socket, byte_size(@preface))
      send_frame(socket, @settings, 0, 0, "")
      serve(socket)
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
  end

  defp start_http2_server(ip) do
    spec = Supervisor.child_spec({Server, ip: ip}, id: make_ref())
    spec |> start_supervised!() |> GenServer.call(:url)
  end

  defp h2c("http://" <> address), do: "h2c://" <> address

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

    listen_to_log()

    assert {502, body} = get(gateway, "grpc.local")
    assert body =~ "does not speak HTTP/2"

    assert log_line("h2c://#{address}") =~
             ~r/ (answers in HTTP\/1.1|closes the connection).* use "http:/
  end

  describe "an endpoint that `http2` names" do
    setup do
      %{name: name} = web = unique("http2")
      Map.put(web, :host, "#{name}.local")
    end

    defp endpoint(context, settings) do
      defaults = [url: [host: context.host], server: true, adapter: Server]
      settings = Keyword.merge(defaults, settings)
      define(context.application, context.endpoint, settings)
      start_supervised!(context.endpoint)
    end

    defp gateway(context, options \\ []) do
      options = [discover: [only: [context.application]], http2: [context.endpoint]] ++ options
      gateway = start_gateway(options)
      settle(gateway)
      gateway
    end

    test "gets HTTP/2 at its own port, whatever `in_vm` is for all", context do
      endpoint(context, [])
      {:ok, {_ip, port}} = context.endpoint.server_info(:http)

      for in_vm <- [false, :auto] do
        gateway = gateway(context, in_vm: in_vm)
        assert get(gateway, context.host) |> elem(1) =~ "by HTTP/2, stream 1"
        assert [service] = ExServiceMeshRouter.services(gateway)
        assert service.upstreams == ["h2c://127.0.0.1:#{port}"]
        assert service.in_vm == false

        assert inspect(ExServiceMeshRouter.explain(gateway, context.host)) =~
                 "#{inspect(context.endpoint)} at h2c://127.0.0.1:#{port}"
      end
    end

    test "gets HTTP/2 at its private listener", context do
      endpoint(context, http: false)
      gateway = gateway(context, index: true)
      assert get(gateway, context.host) |> elem(1) =~ "by HTTP/2, stream 1"
      assert get(gateway, context.host) |> elem(1) =~ "by HTTP/2, stream 3"
      assert [%{upstreams: ["h2c+unix:/" <> _]}] = ExServiceMeshRouter.services(gateway)
      assert {404, index} = get(gateway, "nothing.localhost")
      assert index =~ "h2c+unix:/"
    end

    @tag :capture_log
    test "gets no request if it does not speak HTTP/2, and the log says so", context do
      endpoint(context, adapter: ExServiceMeshRouter.EndpointStandIn.Adapter)
      {:ok, {_ip, port}} = context.endpoint.server_info(:http)
      listen_to_log()
      assert {502, body} = get(gateway(context), context.host)
      assert body =~ "does not speak HTTP/2"

      assert log_line("h2c://127.0.0.1:#{port} ") =~
               ~r/ (answers in HTTP\/1.1|closes).* leave such an endpoint out of `http2`/
    end
  end

  defp listen_to_log do
    handler = :"#{__MODULE__}.#{System.unique_integer([:positive])}"
    :ok = :logger.add_handler(handler, Listener, %{config: self()})
    on_exit(fn -> :logger.remove_handler(handler) end)
  end

  defp log_line(text) do
    assert_receive {:log, line}, 5_000
    if line =~ text, do: line, else: log_line(text)
  end
end
