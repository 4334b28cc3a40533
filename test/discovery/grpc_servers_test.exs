# What Ranch tells of its listeners, in the forms of its versions: a list (1.8) or a map (2).
defmodule :ranch do
  def info(ref) do
    case :persistent_term.get({__MODULE__, ref}) do
      {:stopped, info} -> exit({:noproc, info})
      info -> info
    end
  end
end

defmodule ExServiceMeshRouter.Discovery.GrpcServersTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.Discovery.GrpcServers

  setup do
    %{server: new_server()}
  end

  defp new_server do
    server = Module.concat(__MODULE__, "Server#{System.unique_integer([:positive])}")
    Module.create(server, nil, Macro.Env.location(__ENV__))
    on_exit(fn -> :persistent_term.erase({:ranch, inspect(server)}) end)
    server
  end

  defp tell(server, info), do: :persistent_term.put({:ranch, inspect(server)}, info)

  # A listener, of which only the process and the address matter.
  defp listener(address) do
    pid = start_supervised!({Agent, fn -> nil end}, id: make_ref(), restart: :temporary)
    running(pid, address)
  end

  defp running(pid, {:local, _} = address),
    do: %{pid: pid, status: :running, ip: address, port: :undefined, transport: :ranch_tcp}

  defp running(pid, {ip, port}),
    do: %{pid: pid, status: :running, ip: ip, port: port, transport: :ranch_tcp}

  defp service(gateway) do
    GrpcServers.look(gateway)
    assert [service] = ExServiceMeshRouter.services(gateway)
    service
  end

  defp start_for(server), do: start_gateway(grpc: %{server => "grpc.local"})

  test "a server has its host and its address, with HTTP/2", %{server: server} do
    tell(server, listener({{127, 0, 0, 1}, 50_051}))
    service = service(start_for(server))

    assert %{source: :config, hosts: ["grpc.local"], state: :listening} = service
    assert service.name == inspect(server)
    assert service.upstreams == ["h2c://127.0.0.1:50051"]
  end

  test "all addresses, Unix sockets and Ranch 1 are understood" do
    for {address, upstream} <- [
          {{{0, 0, 0, 0}, 50_051}, "h2c://127.0.0.1:50051"},
          {{{0, 0, 0, 0, 0, 0, 0, 0}, 50_051}, "h2c://localhost:50051"},
          {{:local, "/run/grpc.sock"}, "h2c+unix:/run/grpc.sock"}
        ],
        shape <- [&Function.identity/1, &Map.to_list/1] do
      server = new_server()
      tell(server, address |> listener() |> shape.())
      assert service(start_for(server)).upstreams == [upstream]
    end
  end

  test "a server is followed when it starts later, ends and starts elsewhere", %{server: server} do
    gateway = start_for(server)
    assert service(gateway).state == :not_listening
    assert {503, _} = get(gateway, "grpc.local")

    info = listener({{127, 0, 0, 1}, 50_051})
    tell(server, info)
    eventually(["h2c://127.0.0.1:50051"], fn -> hd_upstreams(gateway) end)

    # Ranch still has the address of a listener that has ended.
    Agent.stop(info.pid)
    eventually([], fn -> hd_upstreams(gateway) end)

    tell(server, listener({{127, 0, 0, 1}, 50_052}))
    eventually(["h2c://127.0.0.1:50052"], fn -> hd_upstreams(gateway) end)
  end

  defp hd_upstreams(gateway), do: hd(ExServiceMeshRouter.services(gateway)).upstreams

  test "a busy listener keeps its route", %{server: server} do
    info = listener({{127, 0, 0, 1}, 50_051})
    tell(server, info)
    gateway = start_for(server)
    assert service(gateway).state == :listening

    tell(server, {:stopped, info})
    assert service(gateway).state == :listening
  end

  test "a server with TLS is named in the log", %{server: server} do
    tell(server, %{listener({{127, 0, 0, 1}, 50_051}) | transport: :ranch_ssl})

    log =
      capture_log(fn ->
        assert service(start_for(server)).state == :not_listening
      end)

    assert log =~ "#{inspect(server)} gets no route: it listens with TLS"
  end

  test "a module that does not exist is named in the log" do
    log = capture_log(fn -> assert service(start_for(No.Such.Server)).state == :not_listening end)
    assert log =~ "grpc.local gets no route: there is no module No.Such.Server"
  end

  test "wrong values of grpc: are named" do
    assert {:error, error} = ExServiceMeshRouter.Config.new(grpc: %{MyApp.Endpoint => "a b"})
    assert Exception.message(error) =~ ~s|grpc[MyApp.Endpoint]: got "a b", expected a host name|
    assert {:error, error} = ExServiceMeshRouter.Config.new(grpc: ["grpc.local"])
    assert Exception.message(error) =~ "expected a map such as %{MyApp.GRPC.Endpoint"
  end
end
