defmodule ExServiceMeshRouter.HandoverTest do
  # Both gateways are in this VM; test/system/handover_test.exs has a VM for each.
  use ExServiceMeshRouter.GatewayCase

  import ExUnit.CaptureIO
  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.{Config, Handover, ListenError}

  @moduletag :tmp_dir
  @host "app.local"

  setup %{tmp_dir: folder} do
    # A socket's path is short, and that of a test's directory is not.
    directory = Path.join(System.tmp_dir!(), "handover#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf(directory) end)
    %{folder: folder, directory: directory, path: Path.join(directory, "gateway.sock")}
  end

  defp start(text, path, options \\ []) do
    defaults = [port: free_port(), handover: path, services: %{@host => start_server(text)}]
    start_gateway(Keyword.merge(defaults, options))
  end

  # A gateway that may not start.
  defp try_start(options) do
    name = Module.concat(__MODULE__, "Gateway#{System.unique_integer([:positive])}")
    defaults = [name: name, ip: {127, 0, 0, 1}, discover: false]
    Process.flag(:trap_exit, true)
    ExServiceMeshRouter.Supervisor.start_link(Keyword.merge(defaults, options))
  end

  defp port(gateway), do: ExServiceMeshRouter.port(gateway)

  defp serving(path), do: with({:ok, %{serving: serving}} <- Handover.status(path), do: serving)
  defp next(path), do: with({:ok, %{next: next}} <- Handover.status(path), do: next)

  # Both are the same process of the system, so the answer tells them apart.
  defp await_taken(gateway, path) do
    eventually("serving", 5_000, fn -> serving(path)["state"] end)
    eventually(nil, 5_000, fn -> next(path) end)
    eventually({200, "new"}, fn -> get(gateway, @host) end)
  end

  # All events of handovers, sent to the test, once their keys have been compared with the catalogue.
  defp listen do
    test = self()

    for %{event: [_, :handover, _] = event} = entry <- ExServiceMeshRouter.Telemetry.events() do
      id = {__MODULE__, make_ref()}

      handler = fn event, measurements, metadata, _config ->
        same = Enum.sort(Map.keys(metadata)) == Enum.sort(entry.metadata)
        keys? = same and Map.keys(measurements) -- entry.measurements == []
        send(test, {:event, event, if(keys?, do: measurements), metadata})
      end

      :ok = apply(:telemetry, :attach, [id, event, handler, nil])
      on_exit(fn -> apply(:telemetry, :detach, [id]) end)
    end
  end

  describe "a handover" do
    test "moves the port to the new gateway, and the old one drains", %{path: path} do
      old = start("old", path)
      assert get(old, @host) == {200, "old"}
      socket = old |> url() |> RawClient.connect()
      RawClient.send(socket, "GET / HTTP/1.1\r\nHost: #{@host}\r\n\r\n")
      assert RawClient.read_until(socket, "old") =~ "200 OK"

      log =
        capture_log(fn ->
          new = start("new", path, port: port(old))
          await_taken(new, path)
          assert port(new) == port(old)
          # The old one closes its idle connection, and has ended its part.
          assert RawClient.read_to_end(socket) == ""
          eventually(true, 5_000, fn -> ExServiceMeshRouter.Gateway.drained?(old) end)
          assert get(new, @host) == {200, "new"}
          eventually(nil, 5_000, fn -> serving(path)["handover"] end)
        end)

      assert log =~ "takes the port over from process #{System.pid()} once this system is ready"
      assert log =~ "process #{System.pid()} has taken the port over; this one drains"
      assert log =~ "has the port after"
    end

    test "can follow another one", %{path: path} do
      first = start("old", path)

      for _ <- 1..3 do
        new = start("new", path, port: port(first))
        await_taken(new, path)
        {:ok, %{next: nil}} = Handover.status(path)
      end
    end

    test "of addresses: the new gateway binds those that the old one lacks", %{path: path} do
      old = start("old", path, ip: [{127, 0, 0, 1}])
      new = start("new", path, port: port(old), ip: [{127, 0, 0, 1}, {127, 0, 0, 2}])
      await_taken(new, path)
      url = "http://127.0.0.2:#{port(new)}"
      assert url |> RawClient.exchange(request(@host)) |> answer() == {200, "new"}
    end

    test "waits until it is told with take: :manual", %{path: path} do
      old = start("old", path, index: true)
      new = start("new", path, port: port(old), handover: [path: path, take: :manual])
      eventually("ready", 5_000, fn -> next(path)["state"] end)
      # As text and as HTML.
      assert {200, index} = get(old, "localhost")
      assert index =~ "; handing over to process #{System.pid()}\n"
      html = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
      page = old |> url() |> RawClient.exchange(html)
      assert page =~ ~s|<li class="chip warn">handing over to process #{System.pid()}</li>|
      assert next(path)["handover"] == "ready to take over from process #{System.pid()}"
      assert serving(path)["handover"] == "handing over to process #{System.pid()}"
      assert get(old, @host) == {200, "old"}

      printed = capture_io(fn -> Mix.Task.rerun("mesh.handover", ["--path", path]) end)
      assert printed =~ "has the port; handing over to process #{System.pid()}"
      assert printed =~ "next: process #{System.pid()}"
      assert printed =~ "is ready, and takes over when it is told to"

      taken = capture_io(fn -> Mix.Task.rerun("mesh.handover", ["--path", path, "--take"]) end)
      assert taken =~ "has the port"
      assert get(new, @host) == {200, "new"}
      assert {:error, "no gateway waits to take over at " <> _} = Handover.take(path)
    end

    test "is executed as telemetry events on both sides", %{path: path} do
      old = start("old", path)
      listen()
      new = start("new", path, port: port(old))

      for {gateway, role} <- [{old, :previous}, {new, :successor}] do
        assert_receive {:event, [_, :handover, :start], %{system_time: _},
                        %{gateway: ^gateway, role: ^role, peer: peer}},
                       5_000

        assert peer == String.to_integer(System.pid())

        assert_receive {:event, [_, :handover, :stop], %{duration: _, pause: pause},
                        %{gateway: ^gateway, role: ^role}},
                       5_000

        assert System.convert_time_unit(pause, :native, :millisecond) < 1_000
      end
    end

    test "counts the connections of both gateways towards the limits", %{path: path} do
      limits = [connections_per_client: 2]
      test = self()

      slow = fn request ->
        send(test, {:asked, self()})
        receive do: (:answer -> {{200, [], "slow"}, request})
      end

      old = start(slow, path, limits: limits)
      sockets = for _ <- 1..2, do: ask_slowly(old)
      new = start("new", path, port: port(old), limits: limits)
      eventually("serving", 5_000, fn -> serving(path)["state"] end)
      eventually(nil, 5_000, fn -> next(path) end)
      assert {503, _} = get(new, @host)
      for {socket, handler} <- sockets, do: answered_slowly(socket, handler)
      eventually({200, "new"}, 5_000, fn -> get(new, @host) end)
    end
  end

  test "a fixed port of the metrics changes to the new gateway", %{path: path} do
    metrics = [port: free_port()]
    old = start("old", path, metrics: metrics, restart: :temporary)
    url = "http://127.0.0.1:#{metrics[:port]}"

    ask = fn ->
      url
      |> RawClient.exchange("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
      |> answer()
      |> elem(0)
    end

    assert ask.() == 200
    new = start("new", path, port: port(old), metrics: metrics)
    await_taken(new, path)
    assert ask.() == 200
    stop_supervised!(old)

    eventually(200, 5_000, fn ->
      case :gen_tcp.connect({127, 0, 0, 1}, metrics[:port], []) do
        {:ok, socket} -> :gen_tcp.close(socket) && ask.()
        {:error, :econnrefused} -> :refused
      end
    end)

    # And it ends with it.
    stop_supervised!(new)
    assert {:error, :econnrefused} = :gen_tcp.connect({127, 0, 0, 1}, metrics[:port], [])
  end

  defp ask_slowly(gateway) do
    socket = gateway |> url() |> RawClient.connect()
    RawClient.send(socket, request(@host))
    assert_receive {:asked, handler}, 5_000
    {socket, handler}
  end

  defp answered_slowly(socket, handler) do
    send(handler, :answer)
    assert socket |> RawClient.read_to_end() |> answer() == {200, "slow"}
  end

  describe "a new gateway stops, and the old one goes on," do
    setup %{path: path} do
      old = start("old", path)
      %{old: old}
    end

    defp refused(options, old) do
      log = capture_log(fn -> send(self(), try_start(options)) end)
      assert_received {:error, %ListenError{kind: :handover} = error}
      assert get(old, @host) == {200, "old"}
      {Exception.message(error), log}
    end

    test "if it is to have another port", %{old: old, path: path} do
      port = port(old)
      {message, log} = refused([port: port + 1, handover: path], old)

      assert message =~
               "it listens on port #{port}, and the other one is to listen on port #{port + 1}"

      assert log =~ "this gateway does not hand its port over to process #{System.pid()}: it"
    end

    test "if it is not to listen on all addresses", %{old: old, path: path} do
      {message, _log} = refused([port: port(old), ip: {127, 0, 0, 2}, handover: path], old)
      assert message =~ "it listens on 127.0.0.1, too"
    end

    test "if another one is taking over", %{old: old, path: path} do
      new = start("new", path, port: port(old), handover: [path: path, take: :manual])
      eventually("ready", 5_000, fn -> next(path)["state"] end)
      {message, _log} = refused([port: port(old), handover: path], old)
      assert message =~ "process #{System.pid()} is taking it over already"
      assert {:ok, _status} = Handover.take(path)
      assert get(new, @host) == {200, "new"}
    end

    test "if it is told to stop at the moment when it is told to take over", context do
      %{old: old, path: path} = context
      new = start("new", path, port: port(old), handover: [path: path, take: :manual])
      eventually("ready", 5_000, fn -> next(path)["state"] end)
      successor = new |> Module.concat(Successor) |> Process.whereis()
      :erlang.suspend_process(successor)
      :ok = ExServiceMeshRouter.Gateway.drain(new)
      taking = Task.async(fn -> Handover.take(path) end)

      eventually(true, fn ->
        match?({:message_queue_len, n} when n > 0, Process.info(successor, :message_queue_len))
      end)

      :erlang.resume_process(successor)
      assert Task.await(taking) == {:error, "this gateway stops"}
      eventually(nil, 5_000, fn -> serving(path)["handover"] end)
      assert get(old, @host) == {200, "old"}
      refute ExServiceMeshRouter.Gateway.draining?(old)
    end

    test "and if it ends while it waits, another one can take over", %{old: old, path: path} do
      options = [port: port(old), handover: [path: path, take: :manual], restart: :temporary]
      name = start("new", path, options)
      eventually("ready", 5_000, fn -> next(path)["state"] end)

      assert capture_log(fn ->
               stop_supervised!(name)
               eventually(nil, 5_000, fn -> serving(path)["handover"] end)
             end) =~ "has not taken the port over, this one goes on: it ended before it was ready"

      assert get(old, @host) == {200, "old"}
      new = start("new", path, port: port(old))
      await_taken(new, path)
    end
  end

  describe "at the start" do
    test "a stale socket is replaced, and the log says so", %{directory: directory, path: path} do
      File.mkdir!(directory)
      File.chmod!(directory, 0o700)
      {:ok, socket} = :gen_tcp.listen(0, ip: {:local, path})
      :gen_tcp.close(socket)
      assert File.exists?(path)
      log = capture_log(fn -> send(self(), start("new", path)) end)
      assert log =~ "no gateway answers on #{path}, which one left behind"
      assert_received gateway
      assert get(gateway, @host) == {200, "new"}
      assert serving(path)["state"] == "serving"
      # It goes with the gateway.
      stop_supervised!(gateway)
      refute File.exists?(path)
    end

    test "a path that cannot be a socket's is a mistake of the configuration" do
      long = "/run/" <> String.duplicate("x", 98)

      for path <- [long, "gateway.sock", "/run/my_app/"] do
        assert {:error, error} = Config.new(handover: path)
        assert Exception.message(error) =~ "an absolute path of a file, at most 102 bytes"
      end

      assert {:error, error} = Config.new(handover: [stop: true])
      assert Exception.message(error) =~ "a list with a path"
      assert {:ok, %{handover: nil}} = Config.new(handover: false)
      assert {:ok, %{handover: %{stop: false, take: :ready}}} = Config.new(handover: "/run/a/b")
    end

    defp sentence(path) do
      assert {:error, %ListenError{kind: :handover} = error} = try_start(port: 0, handover: path)
      Exception.message(error)
    end

    test "a directory that others can enter is refused", %{directory: directory, path: path} do
      File.mkdir!(directory)
      File.chmod!(directory, 0o755)
      assert sentence(path) =~ "other users can enter #{directory} (mode 755); run `chmod 700"
    end

    test "what is no directory, or no socket, is refused", %{directory: directory, path: path} do
      assert sentence(Path.join(path, "more/gateway.sock")) =~ "#{path} does not exist; create it"
      File.write!(directory, "")
      assert sentence(path) =~ "#{directory} is not a directory"
      File.rm!(directory)
      File.mkdir!(directory)
      File.chmod!(directory, 0o700)
      File.write!(path, "")
      assert sentence(path) =~ "#{path} is not a socket (type regular)"
      assert File.read!(path) == ""
      File.rm!(path)
      {_, 0} = System.cmd("mkfifo", [path])
      assert sentence(path) =~ "#{path} is not a socket (type other)"
      File.rm!(path)
      {:ok, socket} = :gen_udp.open(0, [:local, ifaddr: {:local, path}])
      assert sentence(path) =~ "#{path} is a socket of another type"
      # Neither was replaced.
      {:ok, sender} = :gen_udp.open(0, [:local])
      assert :ok = :gen_udp.send(sender, {:local, path}, 0, "x")
      assert_receive {:udp, ^socket, _, _, ~c"x"}
    end

    test "a file that replaces the socket later stays, and the log says so", %{path: path} do
      log =
        capture_log(fn ->
          gateway = start("new", path)
          eventually("serving", 5_000, fn -> serving(path)["state"] end)
          File.rm!(path)
          File.write!(path, "mine")
          send(self(), gateway)
          eventually(true, 5_000, fn -> no_place?(gateway) end)
        end)

      assert log =~
               "no other process can take the port over: #{path} is not a socket (type regular)"

      assert File.read!(path) == "mine"
      File.rm!(path)
      eventually("serving", 5_000, fn -> serving(path)["state"] end)
      assert_received gateway
      assert get(gateway, @host) == {200, "new"}
    end

    defp no_place?(gateway), do: :sys.get_state(Module.concat(gateway, Offer)).place == nil

    if File.stat!("/proc/self").uid == 0 do
      test "a directory of another user is refused", %{directory: directory, path: path} do
        File.mkdir!(directory)
        File.chmod!(directory, 0o700)
        File.chown!(directory, 65_534)
        assert sentence(path) =~ ~r/#{directory} belongs to user \S+, not to root/
      end
    else
      IO.puts("test/handover_test.exs: a directory of another user needs root to be made")
    end
  end

  test "a gateway without the option has no process of it, and its functions say so", %{
    path: path
  } do
    gateway = start("old", nil, handover: false)
    assert get(gateway, @host) == {200, "old"}
    assert {:ok, %{serving: nil, next: nil}} = Handover.status(path)
    assert {:error, "`handover` is not configured" <> _} = Handover.status()
    assert capture_io(fn -> Handover.print(path) end) =~ "no gateway offers its port there"
  end
end
