defmodule ExServiceMeshRouter.GatewayTest do
  # Not async: the module of the NIF is the VM's.
  use ExServiceMeshRouter.GatewayCase

  alias ExServiceMeshRouter.{ConfigError, ListenError, Native}
  alias ExServiceMeshRouter.Gateway.Worker

  # Answers when it is told to.
  defp waiting_server do
    test = self()

    start_server(fn request ->
      send(test, {:asked, self()})

      receive do
        :answer -> {{200, [], "done"}, request}
      end
    end)
  end

  defp tree(gateway), do: Process.whereis(Module.concat(gateway, Supervisor))

  defp workers(gateway) do
    for {{Worker, _index}, pid, _, _} <- gateway |> tree() |> Supervisor.which_children(),
        is_pid(pid),
        do: pid
  end

  defp runner(gateway, worker) do
    {:links, links} = Process.info(worker, :links)
    [runner] = links -- [tree(gateway)]
    runner
  end

  defp refused?(url) do
    %URI{port: port} = URI.parse(url)

    case :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false]) do
      {:error, reason} ->
        reason == :econnrefused

      {:ok, socket} ->
        :gen_tcp.close(socket)
        false
    end
  end

  describe "starting" do
    test "on a port in use fails with a helpful error" do
      gateway = start_gateway()
      port = ExServiceMeshRouter.port(gateway)
      options = [name: TakenPort, port: port, ip: {127, 0, 0, 1}]
      Process.flag(:trap_exit, true)

      assert {:error, %ListenError{kind: :eaddrinuse} = error} =
               ExServiceMeshRouter.Supervisor.start_link(options)

      message = Exception.message(error)
      assert message =~ "port #{port} is in use (127.0.0.1:#{port})"
      # Linux says who has it.
      if File.dir?("/proc/self/fd"), do: assert(message =~ " by process #{System.pid()} (beam")
      assert message =~ "config :ex_service_mesh_router, port: "
    end

    test "on an address of another machine fails with an error that says so" do
      Process.flag(:trap_exit, true)

      assert {:error, %ListenError{kind: :eaddrnotavail} = error} =
               ExServiceMeshRouter.Supervisor.start_link(
                 name: NoAddress,
                 port: 0,
                 ip: {192, 0, 2, 1}
               )

      assert Exception.message(error) =~ "cannot listen on 192.0.2.1:0: this machine has no such"
    end

    test "with an invalid option starts nothing" do
      assert {:error, %ConfigError{}} = ExServiceMeshRouter.Supervisor.start_link(port: -1)
    end

    test "with :loopback listens on IPv4, and on IPv6 if available" do
      gateway = start_gateway(ip: :loopback, services: %{"a.local" => start_server("a")})
      assert get(gateway, "a.local") == {200, "a"}
      port = ExServiceMeshRouter.port(gateway)

      case :gen_tcp.listen(0, [:inet6, ip: {0, 0, 0, 0, 0, 0, 0, 1}]) do
        {:ok, _} ->
          assert {:ok, socket} = :gen_tcp.connect(~c"::1", port, [:inet6, :binary, active: false])
          RawClient.send(socket, request("a.local"))
          assert socket |> RawClient.read_to_end() |> answer() == {200, "a"}

        {:error, _no_ipv6} ->
          :ok
      end
    end
  end

  describe "stopping" do
    test "refuses new connections and lets requests in flight finish" do
      options = [services: %{"slow.local" => waiting_server()}, restart: :temporary]
      gateway = start_gateway(options)
      url = url(gateway)
      socket = RawClient.connect(url)
      RawClient.send(socket, request("slow.local"))
      assert_receive {:asked, handler}, 2_000

      tree = tree(gateway)
      monitor = Process.monitor(tree)
      stopping = Task.async(fn -> Supervisor.stop(tree, :shutdown) end)
      eventually(true, fn -> refused?(url) end)
      refute_received {:DOWN, ^monitor, :process, _, _}
      send(handler, :answer)
      assert socket |> RawClient.read_to_end() |> answer() == {200, "done"}
      assert Task.await(stopping) == :ok
    end

    test "waits at most the drain time" do
      gateway =
        start_gateway(services: %{"slow.local" => waiting_server()}, timeouts: [drain: 100])

      socket = RawClient.connect(url(gateway))
      RawClient.send(socket, request("slow.local"))
      assert_receive {:asked, _handler}, 2_000

      {time, :ok} = :timer.tc(fn -> stop_supervised!(gateway) end)
      assert time in 90_000..3_000_000
      assert RawClient.read_to_end(socket) == ""
    end

    test "frees the port for the next gateway" do
      gateway = start_gateway(timeouts: [drain: 0])
      port = ExServiceMeshRouter.port(gateway)
      {:ok, idle} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false])
      stop_supervised!(gateway)
      again = start_gateway(port: port, services: %{"a.local" => start_server("again")})
      assert get(again, "a.local") == {200, "again"}
      assert {:error, :closed} = :gen_tcp.recv(idle, 0, 1_000)
    end
  end

  describe "a lame duck" do
    test "keeps serving, asks its clients to disconnect, and then drains" do
      gateway =
        start_gateway(
          workers: 2,
          services: %{"a.local" => start_server("a")},
          timeouts: [lame_duck: 1_000, drain: 2_000]
        )

      url = url(gateway)
      refute head(url) =~ "connection: close"
      began = System.monotonic_time(:millisecond)
      drain = Task.async(fn -> ExServiceMeshRouter.Gateway.drain(gateway) end)
      eventually(true, fn -> Enum.all?(1..10, fn _ -> head(url) =~ "connection: close" end) end)
      assert System.monotonic_time(:millisecond) - began < 1_000, "it was too late to say so"

      assert Task.await(drain, 10_000) == :ok
      assert System.monotonic_time(:millisecond) - began >= 1_000
      assert refused?(url)
    end

    test "is stopped at once by its supervisor" do
      gateway = start_gateway(timeouts: [lame_duck: 60_000, drain: 0])
      drain = Task.async(fn -> ExServiceMeshRouter.Gateway.drain(gateway) end)
      eventually(true, fn -> ExServiceMeshRouter.Gateway.draining?(gateway) end)
      stop_supervised!(gateway)
      assert Task.await(drain, 10_000) == :ok
    end

    @tag :capture_log
    test "stops in time even if its process is killed" do
      gateway = start_gateway(timeouts: [lame_duck: 500, drain: 2_000])
      url = url(gateway)
      drain = Task.async(fn -> ExServiceMeshRouter.Gateway.drain(gateway) end)
      eventually(true, fn -> ExServiceMeshRouter.Gateway.draining?(gateway) end)
      Process.exit(Process.whereis(Module.concat(gateway, Gateway)), :kill)
      assert Task.await(drain, 10_000) == :ok
      assert refused?(url)
    end

    # On a connection that would stay open.
    defp head(url) do
      uri = URI.parse(url)
      {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, uri.port, [:binary, active: false])
      :ok = :gen_tcp.send(socket, "GET / HTTP/1.1\r\nHost: a.local\r\n\r\n")
      {:ok, answer} = :gen_tcp.recv(socket, 0, 5_000)
      :gen_tcp.close(socket)
      String.downcase(answer)
    end
  end

  describe "a worker" do
    setup do
      gateway = start_gateway(workers: 2, services: %{"a.local" => start_server("a")})
      %{gateway: gateway}
    end

    test "whose owner is killed is restarted, and no request is lost", %{gateway: gateway} do
      [first, second] = workers(gateway)
      Process.exit(first, :kill)

      for _ <- 1..50, do: assert(get(gateway, "a.local") == {200, "a"})
      eventually(2, fn -> gateway |> workers() |> length() end)
      assert second in workers(gateway)
      refute first in workers(gateway)
      stop_supervised!(gateway)
    end

    test "whose runner is killed keeps serving and can be stopped", %{gateway: gateway} do
      [first, _second] = workers(gateway)
      monitor = Process.monitor(first)
      Process.exit(runner(gateway, first), :kill)
      assert_receive {:DOWN, ^monitor, :process, _, _}, 3_000

      for _ <- 1..50, do: assert(get(gateway, "a.local") == {200, "a"})
      url = url(gateway)
      stop_supervised!(gateway)
      assert refused?(url)
    end

    test "whose call returns an error ends with that error" do
      {:ok, gateway} = open()
      assert Native.run(gateway, 7) == {:error, "there is no worker 7"}
    end
  end

  test "a gateway stops when its owner dies" do
    test = self()

    opener =
      spawn(fn ->
        send(test, open())
        receive do: (:end -> :ok)
      end)

    assert_receive {:ok, gateway}
    [{ip, port}] = Native.addrs(gateway)
    running = Task.async(fn -> Native.run(gateway, 0) end)
    socket = RawClient.connect("http://#{ip}:#{port}")
    :gen_tcp.close(socket)
    send(opener, :end)
    assert Task.await(running) == :ok
  end

  test "an option that the library cannot decode gives an error with its key" do
    settings = settings([])
    without = fn group, key -> update_in(settings[group], &Map.delete(&1, key)) end

    for {settings, text} <- [
          {%{}, "ips: missing"},
          {:none, "got none, expected a map"},
          {Map.delete(settings, :most_workers), "most_workers: missing"},
          {without.(:limits, :body_bytes), "limits.body_bytes: missing"},
          {without.(:timeouts, :idle), "timeouts.idle: missing"},
          {put_in(settings.timeouts[:idle], :ever),
           "timeouts.idle: got ever, expected Option<u64>"},
          {put_in(settings.limits[:more], 1), "limits: unknown key more"},
          {%{settings | port: 65_536}, "port: got 65536, expected a port"},
          {%{settings | limits: []}, "limits: got [], expected a map"},
          {%{settings | ips: ["::1", "x"]}, ~s(ips[1]: got <<"x">>, expected IpAddr)},
          {%{settings | proxy_protocol: :v3},
           "proxy_protocol: got v3, expected :v1 or :v2 or :any"}
        ] do
      assert {:error, {:config, "", "gateway option " <> ^text}} = Native.open(settings, self())
    end
  end

  test "a route that the library cannot decode gives an error with its service and key" do
    {:ok, gateway} = open()
    tcp = %{kind: :tcp, ip: "127.0.0.1", port: 1}
    service = %{name: "a", hosts: ["a"], upstreams: [tcp]}

    for {service, text} <- [
          {:wrong, "services[0]: got wrong, expected a map"},
          {Map.delete(service, :name), "services[0].name: missing"},
          {Map.delete(service, :hosts), ~s(services["a"].hosts: missing)},
          {%{service | hosts: "a"}, ~s(services["a"].hosts: got <<"a">>, expected Vec<)},
          {Map.put(service, :weight, 1), ~s(services["a"]: unknown key weight)},
          {%{service | upstreams: [tcp, Map.delete(tcp, :port)]},
           ~s(services["a"].upstreams[1].port: missing)},
          {%{service | upstreams: [%{tcp | port: 65_536}]},
           ~s(services["a"].upstreams[0].port: got 65536, expected a port)},
          {%{service | upstreams: [%{tcp | ip: "localhost"}]},
           ~s(services["a"].upstreams[0].ip: got <<"localhost">>, expected IpAddr)},
          {%{service | upstreams: [%{tcp | kind: :udp}]},
           ~s(services["a"].upstreams[0].kind: got udp, expected :tcp or :loopback or :unix)},
          {%{service | upstreams: [Map.put(tcp, :node, :b@h)]},
           ~s(services["a"].upstreams[0]: unknown key node)},
          {%{service | hosts: ["a b"]}, "a b"}
        ] do
      assert {:error, error} = Native.put_routes(gateway, [service], nil)
      assert error =~ text
    end

    # None of them was put.
    assert Native.resolve(gateway, "a") == nil
    assert :ok = Native.put_routes(gateway, [service], nil)
    assert Native.resolve(gateway, "a") == {:exact, "a", "a"}
  end

  test "a wrong reference raises ArgumentError" do
    assert_raise ArgumentError, fn -> Native.stats(make_ref()) end
  end

  describe "the module of the NIF under traffic" do
    setup do
      gateway = start_gateway(services: %{"a.local" => start_server("a")}, timeouts: [drain: 500])
      %{gateway: gateway}
    end

    test "is not replaced by a reload, and a purge removes nothing", %{gateway: gateway} do
      for _ <- 1..3 do
        assert {:error, :on_load_failure} = :code.load_file(Native)
        refute :code.purge(Native)
        assert get(gateway, "a.local") == {200, "a"}
      end
    end

    test "can be deleted and purged, and the gateway is opened again", %{gateway: gateway} do
      traffic = Task.async(fn -> for _ <- 1..200, do: connect_and_get(gateway) end)
      assert :code.delete(Native)
      assert :code.purge(Native)
      eventually({200, "a"}, fn -> connect_and_get(gateway) end)
      assert Enum.any?(Task.await(traffic, 20_000), &(&1 == {200, "a"}))
      assert is_pid(tree(gateway))
      stop_supervised!(gateway)
    end

    # Whatever happens to a request while the gateway is opened anew, it happens to that one only.
    defp connect_and_get(gateway) do
      get(gateway, "a.local")
    rescue
      _ -> :failed
    catch
      _, _ -> :failed
    end
  end

  describe "the VM" do
    @script """
    {:ok, _} = ExServiceMeshRouter.Supervisor.start_link(port: 0, discover: false, timeouts: [drain: 60_000])
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, ExServiceMeshRouter.port(), [:binary])
    :ok = :gen_tcp.send(socket, "GET / HTTP/1.1\\r\\nHost: ")
    """

    for {how, call} <- [
          halts: "System.halt(7)",
          "stops at once": "System.stop(7); Process.sleep(:infinity)"
        ] do
      test "#{how} with connections open and workers running" do
        paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])
        script = @script <> unquote(call)

        {time, {output, status}} =
          :timer.tc(fn ->
            System.cmd("elixir", paths ++ ["-e", script], stderr_to_stdout: true)
          end)

        assert {status, output} == {7, output}
        assert time < 10_000_000, "took #{div(time, 1_000)} ms: #{output}"
      end
    end
  end

  defp open, do: with(:ok <- Native.load(), do: Native.open(settings([]), self()))

  defp settings(options) do
    {:ok, config} = ExServiceMeshRouter.Config.new(port: 0, ip: {127, 0, 0, 1})
    Map.merge(config.native, Map.new(options))
  end
end
