defmodule ExServiceMeshRouter.ListenersTest do
  # Not async: ports that were free a moment ago are taken.
  use ExServiceMeshRouter.GatewayCase

  import Bitwise
  import ExServiceMeshRouter.EndpointStandIn
  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.ListenError
  alias ExServiceMeshRouter.EndpointStandIn.{LateAdapter, TcpAdapter}
  alias ExServiceMeshRouter.Listeners.SocketDir

  setup do: %{web: web("private"), other: web("other")}

  defp web(name) do
    %{name: name} = web = unique(name)
    Map.merge(web, %{host: "#{name}.local", says: name})
  end

  defp define_web(web, settings) do
    defaults = [url: [host: web.host], says: web.says, server: true, http: false]
    define(web.application, web.endpoint, Keyword.merge(defaults, settings))
  end

  defp settings(web), do: Application.get_env(web.application, web.endpoint)

  defp discovering(webs, options \\ []) do
    only = for web <- List.wrap(webs), do: web.application
    start_gateway(Keyword.merge([discover: [only: only]], options))
  end

  defp served(gateway, web, text \\ nil),
    do: eventually({200, text || web.says}, fn -> get(gateway, web.host) end)

  defp upstream(gateway, web) do
    services = ExServiceMeshRouter.services(gateway)
    Enum.find_value(services, &(&1.endpoint == web.endpoint && List.first(&1.upstreams)))
  end

  describe "an endpoint that serves and has no http:" do
    test "gets a socket in a directory that only this user can enter", %{web: web} do
      define_web(web, [])
      gateway = discovering(web)
      start_supervised!(web.endpoint)
      served(gateway, web)

      assert "unix:" <> path = upstream(gateway, web)
      assert byte_size(path) <= 107
      assert (File.stat!(Path.dirname(path)).mode &&& 0o777) == 0o700
      assert {:ok, {:local, ^path}} = web.endpoint.server_info(:http)
    end

    test "gets a listener if it started before the gateway", %{web: web} do
      define_web(web, [])
      start_supervised!(web.endpoint)
      served(discovering(web), web)
    end

    test "has a listener while it runs and after a restart", %{web: web} do
      define_web(web, [])
      gateway = discovering(web)
      start_supervised!(web.endpoint)
      served(gateway, web)

      [{_, listener, _, _}] = Supervisor.which_children(web.endpoint)
      monitor = Process.monitor(listener)
      stop_supervised!(web.endpoint)
      assert_receive {:DOWN, ^monitor, :process, _, _}
      eventually(503, fn -> gateway |> get(web.host) |> elem(0) end)

      start_supervised!(web.endpoint)
      served(gateway, web)
    end

    test "gets its server restarted on the same socket after a crash", %{web: web} do
      define_web(web, [])
      gateway = discovering(web)
      start_supervised!(web.endpoint)
      served(gateway, web)
      upstream = upstream(gateway, web)

      [{_, listener, _, _}] = Supervisor.which_children(web.endpoint)
      capture_log(fn -> Process.exit(listener, :kill) end)

      eventually(true, fn ->
        match?(
          [{_, pid, _, _}] when is_pid(pid) and pid != listener,
          Supervisor.which_children(web.endpoint)
        )
      end)

      # The old route may serve for a moment, before discovery hears of either.
      eventually(upstream, fn -> upstream(gateway, web) end)
      served(gateway, web)
    end

    test "passes its other settings to the listener", %{web: web} do
      http = [
        ip: {127, 0, 0, 1},
        port: free_port(),
        num_acceptors: 3,
        transport_options: [:inet6, num: 1, socket_opts: [:inet6]]
      ]

      define_web(web, code_reloader: true, tell: self(), http: http)
      gateway = discovering(web, private_listeners: :all)
      start_supervised!(web.endpoint)
      served(gateway, web, web.says <> " reloaded")
      endpoint = web.endpoint

      # The first one is the endpoint's own start, which has no listener.
      assert_received {:child_specs, ^endpoint, [_ | _] = first}
      assert first[:http] == false
      # Of an adapter that is not known, what asks for a Unix socket is not started.
      assert_received {:child_specs, ^endpoint, [_ | _]}
      assert_received {:child_specs, ^endpoint, config}
      assert config[:otp_app] == web.application
      assert config[:code_reloader]
      assert config[:https] == false

      assert config[:http] == [
               ip: {127, 0, 0, 1},
               port: 0,
               num_acceptors: 3,
               transport_options: [num: 1, socket_opts: []]
             ]
    end

    test "gets a loopback port if the adapter does not support sockets", %{web: web} do
      define_web(web, adapter: TcpAdapter)
      gateway = discovering(web)
      start_supervised!(web.endpoint)
      served(gateway, web)
      assert "http://127.0.0.1:" <> _ = upstream(gateway, web)
    end

    test "answers 503 and logs one line if no listener can be started", %{web: web} do
      define_web(web, adapter: NoSuchAdapter)

      # Endpoints that listen themselves would not even start.
      start = fn -> Supervisor.start_link([], strategy: :one_for_one, name: web.endpoint) end

      log =
        capture_log(fn ->
          start_supervised!(%{id: :bare, start: {__MODULE__, :call, [start]}, type: :supervisor})
          gateway = discovering(web)

          eventually([:not_listening], fn ->
            for service <- ExServiceMeshRouter.services(gateway), do: service.state
          end)

          discovery = gateway |> ExServiceMeshRouter.Discovery.process_name() |> Process.whereis()
          settled = fn -> :sys.get_state(discovery).endpoints[web.endpoint].problem != nil end
          eventually(true, settled)
          send(discovery, :scan)
          eventually(true, settled)
          assert {503, _} = get(gateway, web.host)
        end)

      assert [_, _] =
               String.split(
                 log,
                 "#{inspect(web.endpoint)} has no private listener, because it failed to start"
               )
    end
  end

  @doc false
  def call(fun), do: fun.()

  describe "private_listeners:" do
    test "server: false is respected by :auto and not by :all", %{web: web} do
      define_web(web, server: false)
      start_supervised!(web.endpoint)
      auto = discovering(web)
      settle(auto)
      assert {503, _} = get(auto, web.host)

      served(discovering(web, private_listeners: :all), web)
    end

    test ":all replaces the listener of an endpoint", %{web: web} do
      define_web(web, http: [port: 0])
      start_supervised!(web.endpoint)
      {:ok, {_ip, own}} = web.endpoint.server_info(:http)
      gateway = discovering(web, private_listeners: :all)
      served(gateway, web)
      assert upstream(gateway, web) != "http://127.0.0.1:#{own}"
      assert {:error, :econnrefused} = :gen_tcp.connect({127, 0, 0, 1}, own, [])
    end

    test "a list replaces the listeners of its endpoints only", %{web: web, other: other} do
      define_web(web, server: false)
      define_web(other, [])
      start_supervised!(web.endpoint)
      start_supervised!(other.endpoint)
      gateway = discovering([web, other], private_listeners: [web.endpoint])
      served(gateway, web)
      settle(gateway)
      assert {503, _} = get(gateway, other.host)
    end

    test ":never starts no listener", %{web: web, other: other} do
      define_web(web, [])
      define_web(other, http: [port: 0])
      start_supervised!(web.endpoint)
      start_supervised!(other.endpoint)
      gateway = discovering([web, other], private_listeners: :never)
      served(gateway, other)
      settle(gateway)
      assert {503, _} = get(gateway, web.host)
      assert Supervisor.which_children(web.endpoint) == []
    end
  end

  describe "the port of the gateway" do
    test "is taken from an endpoint that starts later", %{web: web} do
      port = free_port()
      define_web(web, http: [ip: {127, 0, 0, 1}, port: port])

      log =
        capture_log(fn ->
          gateway = discovering(web, port: port)
          start_supervised!(web.endpoint)
          served(gateway, web)
          assert "http://127.0.0.1:" <> _ = upstream(gateway, web)
          # Links that took their port from http: lead where they led.
          assert settings(web)[:url][:port] == port
        end)

      # One line, once, and nothing to do.
      line = "#{inspect(web.endpoint)} needs no port: port #{port} is the gateway's"
      assert [_, _] = String.split(log, line)
      refute log =~ "config #{inspect(web.application)}"
    end

    test "is handed over by an endpoint that started earlier", %{web: web} do
      define_web(web, http: [port: 0])
      start_supervised!(web.endpoint)
      {:ok, {_ip, port}} = web.endpoint.server_info(:http)
      gateway = discovering(web, port: port)
      assert ExServiceMeshRouter.port(gateway) == port
      served(gateway, web)

      # Nor does it take it back.
      stop_supervised!(web.endpoint)
      start_supervised!(web.endpoint)
      served(gateway, web)
    end

    test "is handed over even if it becomes free a moment after its listener ended",
         %{web: web} do
      define_web(web, http: [port: 0], adapter: LateAdapter)
      start_supervised!(web.endpoint)
      {:ok, {_ip, port}} = web.endpoint.server_info(:http)
      gateway = discovering(web, port: port)
      assert ExServiceMeshRouter.port(gateway) == port
      served(gateway, web)
    end

    test "with :never, the error names the endpoint and the fix", %{web: web} do
      define_web(web, http: [port: 0])
      start_supervised!(web.endpoint)
      {:ok, {_ip, port}} = web.endpoint.server_info(:http)
      Process.flag(:trap_exit, true)

      assert {:error, %ListenError{holder: holder} = error} =
               ExServiceMeshRouter.Supervisor.start_link(
                 name: NeverPort,
                 port: port,
                 ip: {127, 0, 0, 1},
                 private_listeners: :never
               )

      assert holder == {web.application, web.endpoint}
      message = Exception.message(error)

      assert message =~
               "port #{port} is in use (127.0.0.1:#{port}): #{inspect(web.endpoint)} of this"

      assert message =~
               "`config #{inspect(web.application)}, #{inspect(web.endpoint)}, http: [port: #{port + 1}]`"
    end

    test "with :never, a conflict is logged before the endpoint fails to start", %{web: web} do
      port = free_port()
      define_web(web, http: [ip: {127, 0, 0, 1}, port: port])
      log = capture_log(fn -> discovering(web, port: port, private_listeners: :never) end)

      assert log =~
               "ExServiceMeshRouter and #{inspect(web.endpoint)} are both configured with port #{port}"

      assert log =~ "#{inspect(web.endpoint)}, http: [port: #{port + 1}]`"
      assert settings(web)[:http] == [ip: {127, 0, 0, 1}, port: port]
    end
  end

  describe "links, in development" do
    setup %{web: web, other: other} do
      before = Mix.env()
      Mix.env(:dev)
      on_exit(fn -> Mix.env(before) end)

      for it <- [web, other],
          do: define_web(it, url: [host: "localhost"], tell: self())

      %{name: String.replace_suffix("#{web.application}", "_web", "") <> ".localhost"}
    end

    test "lead to the endpoint's name if it shares its host",
         %{web: web, other: other, name: name} do
      gateway = discovering([web, other], dev_domain: "localhost", index: false)
      start_supervised!(web.endpoint)
      start_supervised!(other.endpoint)
      assert settings(web)[:url][:host] == name
      assert settings(web)[:url][:port] == ExServiceMeshRouter.port(gateway)
      eventually({200, web.says}, fn -> get(gateway, name) end)
      # It asks for the same hosts as before, and localhost is nobody's.
      assert {404, _} = get(gateway, "localhost")
      stop_supervised!(gateway)
      eventually([host: "localhost"], fn -> settings(web)[:url] end)
    end

    test "do not change which endpoint gets a host", %{web: web, other: other, name: name} do
      # Keeps its links, for it listens itself; and does not get what three have asked for.
      third = web("third")
      define_web(third, url: [host: "localhost"], http: [port: 0])
      gateway = discovering([web, other, third], dev_domain: "localhost", index: false)
      for it <- [web, other, third], do: start_supervised!(it.endpoint)
      eventually({200, web.says}, fn -> get(gateway, name) end)
      settle(gateway)
      assert settings(third)[:url] == [host: "localhost"]
      assert {404, _} = get(gateway, "localhost")
    end

    test "are changed for an endpoint that started before the gateway", %{
      web: web,
      other: other,
      name: name
    } do
      endpoint = start_supervised!(web.endpoint) && web.endpoint
      gateway = discovering([web, other], dev_domain: "localhost")
      assert_received {:config_change, settings}
      assert settings[:url][:host] == name
      assert settings[:server]
      assert Process.whereis(endpoint)
      eventually({200, web.says}, fn -> get(gateway, name) end)
    end

    test "are unchanged if the endpoint has its own host or a configured port",
         %{web: web, other: other} do
      discovering(web, dev_domain: "localhost")
      assert settings(web)[:url][:host] == "localhost"

      for port <- [8080, {:system, "NO_SUCH_PORT"}] do
        proxied = [host: "localhost", port: port]
        Application.put_env(other.application, other.endpoint, url: proxied, server: true)
        discovering([web, other], dev_domain: "localhost")
        assert settings(other)[:url] == proxied
      end

      Application.put_env(other.application, other.endpoint, url: nil, server: true)
      gateway = discovering([web, other], dev_domain: "localhost")
      assert settings(other)[:url] == [port: ExServiceMeshRouter.port(gateway)]
    end
  end

  test "two endpoints with the same port both get a private listener", %{web: web, other: other} do
    port = free_port()
    define_web(web, http: [ip: {127, 0, 0, 1}, port: port])
    define_web(other, http: [ip: {127, 0, 0, 1}, port: "#{port}"])
    gateway = discovering([web, other])
    start_supervised!(web.endpoint)
    start_supervised!(other.endpoint)
    served(gateway, web)
    served(gateway, other)
  end

  test "an endpoint with a port of its own keeps it", %{web: web} do
    define_web(web, http: [ip: {127, 0, 0, 1}, port: free_port()])
    before = settings(web)
    gateway = discovering(web)
    start_supervised!(web.endpoint)
    served(gateway, web)
    assert settings(web) == before
    assert upstream(gateway, web) == "http://127.0.0.1:#{before[:http][:port]}"
  end

  test "a gateway that stops removes its listeners and restores settings", %{
    web: web,
    other: other
  } do
    port = free_port()
    define_web(web, http: [ip: {127, 0, 0, 1}, port: port])
    define_web(other, [])
    before = Enum.sort(settings(web))
    gateway = discovering([web, other], port: port)
    start_supervised!(web.endpoint)
    start_supervised!(other.endpoint)
    served(gateway, web)
    served(gateway, other)
    "unix:" <> path = upstream(gateway, other)

    # Its listener ends with the endpoint, as at the end of a node. Bandit and Cowboy leave the file.
    stop_supervised!(other.endpoint)
    File.touch!(path)
    stop_supervised!(gateway)
    assert Enum.sort(settings(web)) == before
    assert Supervisor.which_children(web.endpoint) == []
    refute File.exists?(path)
  end

  describe "sockets" do
    # Unix sockets have short paths, and a test's own directory is deep.
    setup do
      base = Path.join(System.tmp_dir!(), "mesh#{System.unique_integer([:positive])}")
      File.mkdir_p!(base)
      on_exit(fn -> File.rm_rf(base) end)
      %{base: base}
    end

    defp listen(path) do
      File.mkdir_p!(Path.dirname(path))
      File.chmod!(Path.dirname(path), 0o700)
      {:ok, socket} = :gen_tcp.listen(0, ip: {:local, path})
      socket
    end

    # One that cannot be: the largest number that Linux gives is 4194304.
    @dead "99999999"

    test "of a dead VM are removed, and sockets that answer are kept", %{base: base} do
      gone = Path.join([base, "exmesh-#{@dead}-a", "A.sock"])
      alive = Path.join([base, "exmesh-#{@dead}-b", "B.sock"])
      running = Path.join([base, "exmesh-#{System.pid()}-c", "C.sock"])
      open = Path.join([base, "exmesh-#{@dead}-d", "D.sock"])
      deep = Path.join([base, "exmesh-#{@dead}-e", "deeper", "E.sock"])
      for path <- [gone, running, open, deep], do: path |> listen() |> :gen_tcp.close()
      socket = listen(alive)
      File.chmod!(Path.dirname(open), 0o770)
      deep |> Path.dirname() |> Path.dirname() |> File.chmod!(0o700)
      link = Path.join(base, "exmesh-#{@dead}-f")
      File.ln_s!(Path.dirname(running), link)

      {:ok, _own} = SocketDir.directory()
      SocketDir.clean(base)
      refute File.exists?(Path.dirname(gone))
      # No directory that we would make, or not only what we would put there.
      assert File.exists?(open)
      assert File.exists?(deep)
      assert {:ok, _} = File.read_link(link)
      assert File.exists?(alive)
      assert File.exists?(running)
      :gen_tcp.close(socket)
    end

    test "are in a directory that is created again if it was replaced" do
      strangers = [
        &File.chmod!(&1, 0o770),
        fn directory ->
          File.rename!(directory, directory <> "-away")
          File.mkdir!(directory)
          File.chmod!(directory, 0o700)
        end,
        fn directory ->
          File.rename!(directory, directory <> "-away")
          File.ln_s!(directory <> "-away", directory)
        end,
        &File.rmdir!/1
      ]

      for strange <- strangers do
        {:ok, path} = SocketDir.socket("Web.Endpoint")
        directory = Path.dirname(path)
        assert SocketDir.listen(path, fn -> :ok end) == :ok
        on_exit(fn -> for path <- [directory, directory <> "-away"], do: File.rm_rf(path) end)

        strange.(directory)
        there? = File.exists?(directory)
        # A listener that is started anew at its path.
        assert SocketDir.listen(path, fn -> :ok end) ==
                 if(there?, do: {:error, :eexist}, else: :ok)

        assert {:ok, other} = SocketDir.socket("Web.Endpoint")
        assert Path.dirname(other) != directory == there?
        assert (File.lstat!(Path.dirname(other)).mode &&& 0o777) == 0o700
      end
    end

    test "without a possible directory give an error that says what to do", %{base: base} do
      file = Path.join(base, "file")
      File.write!(file, "")
      long = Path.join(base, String.duplicate("long", 30))
      assert {:error, why} = SocketDir.make([file, Path.join(base, "none"), long])
      assert why =~ "#{file} (not a directory)"
      assert why =~ "#{base}/none (no such file or directory)"
      assert why =~ "#{long} (file name too long)"
      assert why =~ "set XDG_RUNTIME_DIR to a directory that this user may write to"
    end

    test "have a path that can be read while another listener starts" do
      {:ok, path} = SocketDir.socket("Web.Endpoint")
      told = fn -> Task.await(Task.async(fn -> SocketDir.socket("Other.Endpoint") end)) end
      SocketDir.listen(path, fn -> :ok end)
      assert {:ok, _} = SocketDir.listen(path, told)
    end

    test "have paths that fit into a socket address" do
      assert {:ok, path} = SocketDir.socket(String.duplicate("Long.", 30))
      assert byte_size(path) <= 107
      assert {:ok, ^path} = SocketDir.socket(String.duplicate("Long.", 30))
      assert {:ok, other} = SocketDir.socket(String.duplicate("Long.", 31))
      assert path != other
    end
  end
end
