defmodule ExServiceMeshRouter.SystemdTest do
  # Whole VMs, started as systemd starts them: with sockets as descriptors 3, 4, .. by
  # test/support/systemd.pl, and with a socket that hears their state.
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.{EndpointStandIn, Gateway, Native}
  alias ExServiceMeshRouter.Gateway.Store
  alias ExServiceMeshRouter.Systemd.{Activation, Startup}

  @moduletag timeout: 120_000

  @perl System.find_executable("perl")
  @launcher Path.expand("support/systemd.pl", __DIR__)

  unless @perl do
    IO.puts("test/systemd_test.exs is skipped: it needs perl")
    @moduletag :skip
  end

  # The service answers with the process id of its VM.
  @script """
  {:ok, endpoint} =
    ExServiceMeshRouter.Http.Server.start_link(handler: &{{200, [], System.pid()}, &1})

  {ip, []} = Code.eval_string(System.get_env("GATEWAY_IP"))
  url = ExServiceMeshRouter.Http.Server.url(endpoint)
  port = String.to_integer(System.get_env("GATEWAY_PORT"))
  options = [server: true, port: port, ip: ip, discover: false, services: %{"a.local" => url}]
  options = [handover: System.get_env("HANDOVER")] ++ options
  Application.put_all_env([{:ex_service_mesh_router, [timeouts: [drain: 5_000]] ++ options}])
  defmodule Slow do
    use Application

    def start(_type, file) do
      await(file)
      Supervisor.start_link([], strategy: :one_for_one)
    end

    defp await(file), do: unless(File.exists?(file), do: (Process.sleep(10); await(file)))
  end

  file = System.get_env("STARTS_WITH_FILE")
  keys = [vsn: ~c"1", modules: [], registered: [], applications: [], mod: {Slow, file}]
  :ok = :application.load({:application, :slow, keys})
  {:ok, _} = Application.ensure_all_started(:ex_service_mesh_router)
  if file, do: :ok = :application.start(:slow)

  if System.get_env("SECOND_GATEWAY") do
    second = [name: Second, port: 0, discover: false, index: false]
    {:ok, _} = ExServiceMeshRouter.Supervisor.start_link(second)
  end

  IO.puts("started \#{System.pid()}")
  Process.sleep(:infinity)
  """

  setup do
    directory = Path.join(System.tmp_dir!(), "mesh-systemd-#{System.unique_integer([:positive])}")
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    %{directory: directory}
  end

  # Returns the launcher's port and what the gateway's port is. `sockets` are those of the launcher.
  defp launch(sockets, ip, environment \\ []) do
    paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])
    vm = [System.find_executable("elixir") | paths] ++ ["-e", @script]

    environment =
      for {name, value} <- [{"GATEWAY_IP", inspect(ip)} | environment],
          do: {to_charlist(name), to_charlist(value)}

    options = [:binary, :exit_status, :stderr_to_stdout, {:line, 10_000}]
    arguments = [@launcher] ++ sockets ++ ["--"] ++ vm

    launcher =
      Port.open({:spawn_executable, @perl}, options ++ [args: arguments, env: environment])

    {["port " <> port], _} = read_to(launcher, "port ")
    {launcher, String.to_integer(port)}
  end

  defp stop(launcher), do: Port.command(launcher, "stop\n")

  # The lines up to and with the one that contains `text`.
  defp read_to(launcher, text, read \\ []) do
    receive do
      {^launcher, {:data, {:eol, line}}} ->
        if line =~ text,
          do: {Enum.reverse([line | read]), line},
          else: read_to(launcher, text, [line | read])

      {^launcher, {:exit_status, status}} ->
        flunk(
          "ended with #{status} before #{inspect(text)}: #{Enum.join(Enum.reverse(read), "\n")}"
        )
    after
      60_000 -> flunk("#{inspect(text)} does not come: #{Enum.join(Enum.reverse(read), "\n")}")
    end
  end

  # All that the VM has printed until it had started, and its process id.
  defp started(launcher) do
    {lines, "started " <> pid} = read_to(launcher, "started ")
    {Enum.join(lines, "\n"), pid}
  end

  defp ask(ip, port) do
    with {:ok, socket} <- :gen_tcp.connect(ip, port, [:binary, active: false], 5_000),
         :ok <- :gen_tcp.send(socket, request("a.local")) do
      socket |> RawClient.read_to_end("", 20_000) |> answer()
    end
  end

  @loopback6 {0, 0, 0, 0, 0, 0, 0, 1}

  for {what, socket, ip, asked, shown} <- [
        {"IPv4", "=tcp:127.0.0.1", {127, 0, 0, 1}, [{127, 0, 0, 1}], "127.0.0.1:"},
        {"IPv6", "=tcp:::1", @loopback6, [@loopback6], "[::1]:"},
        {"a dual stack, also as :any,", "=tcp:::", :any, [{127, 0, 0, 1}, @loopback6], "[::]:"},
        {"a dual stack as 0.0.0.0", "=tcp:::", {0, 0, 0, 0}, [{127, 0, 0, 1}], "[::]:"}
      ] do
    test "a socket of #{what} is used" do
      {launcher, port} = launch([unquote(socket)], unquote(Macro.escape(ip)))
      {log, pid} = started(launcher)
      assert log =~ "uses descriptor 3 of systemd: #{unquote(shown)}#{port}"
      for ip <- unquote(Macro.escape(asked)), do: assert(ask(ip, port) == {200, pid})
      stop(launcher)
    end
  end

  test "the address that systemd has not bound is bound" do
    {launcher, port} = launch(["web=tcp:127.0.0.1"], :loopback)
    {log, pid} = started(launcher)
    assert log =~ ~s|uses descriptor 3 ("web") of systemd: 127.0.0.1:#{port}|
    assert log =~ "[::1]:#{port}"
    for ip <- [{127, 0, 0, 1}, @loopback6], do: assert(ask(ip, port) == {200, pid})
    stop(launcher)

    {launcher, port} = launch(["=tcp:0.0.0.0"], :any)
    {_log, pid} = started(launcher)
    for ip <- [{127, 0, 0, 1}, @loopback6], do: assert(ask(ip, port) == {200, pid})
    stop(launcher)
  end

  # To close a duplicate by OTP's `socket` would make the first gateway's accept block.
  test "a second gateway of the VM changes nothing of the sockets" do
    {launcher, port} = launch(["=tcp:127.0.0.1"], {127, 0, 0, 1}, [{"SECOND_GATEWAY", "1"}])
    {log, pid} = started(launcher)
    assert log =~ "leaves descriptor 3 of systemd alone: it listens on 127.0.0.1:#{port}"
    for _ <- 1..5, do: assert(ask({127, 0, 0, 1}, port) == {200, pid})
    stop(launcher)
  end

  test "what does not fit is named and left alone, and the rest is used", %{directory: directory} do
    path = Path.join(directory, "socket")

    sockets =
      ["a=udp:127.0.0.1", "b=idle:127.0.0.1:0", "c=closed", "d=tcp:127.0.0.1:0"] ++
        ["e=unix:#{path}", "f=tcp:127.0.0.1"]

    {launcher, port} = launch(sockets, {127, 0, 0, 1})
    {log, pid} = started(launcher)

    for {descriptor, why} <- [
          {~s|3 ("a")|, "it is a datagram socket, not a stream socket"},
          {~s|4 ("b")|, "it does not listen"},
          {~s|5 ("c")|, "there is no such socket"},
          {~s|6 ("d")|, "it listens on 127.0.0.1:"},
          {~s|7 ("e")|, "its address family is neither IPv4 nor IPv6"}
        ],
        do: assert(log =~ "leaves descriptor #{descriptor} of systemd alone: #{why}")

    assert log =~ ", and the gateway on 127.0.0.1:#{port}"
    assert log =~ ~s|uses descriptor 8 ("f") of systemd|
    assert ask({127, 0, 0, 1}, port) == {200, pid}
    # The other listeners are as they were.
    assert {:ok, _} = :gen_tcp.connect({:local, path}, 0, [])
    stop(launcher)
  end

  for {what, environment, why} <- [
        {"another pid", [{"LISTEN_PID", "1"}],
         ~s|LISTEN_PID is "1" and this VM is process OWN, so they belong to another process|},
        {"no number", [{"LISTEN_FDS", "two"}],
         ~s|LISTEN_FDS is "two", expected a number from 0 to|},
        {"too many", [{"LISTEN_FDS", "100000"}], ~s|LISTEN_FDS is "100000", expected a number|}
      ] do
    test "with #{what} the gateway binds as usual and says why" do
      port = free_port()
      environment = [{"GATEWAY_PORT", "#{port}"} | unquote(environment)]
      {launcher, 0} = launch(["=closed"], {127, 0, 0, 1}, environment)
      {log, pid} = started(launcher)
      why = String.replace(unquote(why), "OWN", pid)
      assert log =~ "uses no sockets of systemd and binds its addresses: #{why}"
      assert ask({127, 0, 0, 1}, port) == {200, pid}
      stop(launcher)
    end
  end

  test "a restart on the same sockets refuses and resets no connection" do
    {launcher, port} = launch(["=tcp:127.0.0.1"], {127, 0, 0, 1})
    {_log, first} = started(launcher)
    test = self()
    stop? = :atomics.new(1, [])
    clients = for _ <- 1..8, do: Task.async(fn -> load(port, stop?, test, %{}) end)
    assert_receive {:answered, ^first}, 10_000

    Port.command(launcher, "restart\n")
    {_log, second} = started(launcher)
    assert second != first
    assert_receive {:answered, ^second}, 30_000
    :atomics.put(stop?, 1, 1)

    answers =
      clients
      |> Task.await_many(60_000)
      |> Enum.reduce(&Map.merge(&1, &2, fn _, a, b -> a + b end))

    assert [{200, first}, {200, second}] -- Map.keys(answers) == []
    assert map_size(answers) == 2, "expected only answers of the two, got #{inspect(answers)}"
    stop(launcher)
  end

  for with_handover <- ["", ", also with a path for a handover"] do
    test "connections wait in the queue until the applications have started#{with_handover}",
         %{directory: directory} do
      await_applications(directory, unquote(with_handover) != "")
    end
  end

  defp await_applications(directory, handover?) do
    File.chmod!(directory, 0o700)
    file = Path.join(directory, "go")
    notify = Path.join(directory, "notify")
    socket = hear(notify)
    handover = if handover?, do: [{"HANDOVER", Path.join(directory, "gateway.sock")}], else: []
    environment = [{"STARTS_WITH_FILE", file}, {"NOTIFY_SOCKET", notify}] ++ handover
    {launcher, port} = launch(["=tcp:127.0.0.1"], {127, 0, 0, 1}, environment)
    assert heard(socket, "STATUS") == "STATUS=waiting: application slow is starting"

    {:ok, client} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false])
    :ok = :gen_tcp.send(client, request("a.local"))
    assert :gen_tcp.recv(client, 0, 300) == {:error, :timeout}

    File.touch!(file)
    assert {200, pid} = client |> RawClient.read_to_end() |> answer()
    assert heard(socket, "READY") =~ "MAINPID=#{pid}\n"
    stop(launcher)
  end

  test "an endpoint that does not become ready does not keep the others waiting for ever" do
    web = EndpointStandIn.unique("never")
    EndpointStandIn.define(web.application, web.endpoint, server: true)
    start_supervised!(web.endpoint)
    :ok = Supervisor.terminate_child(web.endpoint, {web.endpoint, :http})
    options = [discover: [only: [web.application]], services: %{"a.local" => start_server("a")}]
    gateway = start_gateway(options)
    # As with a socket of systemd.
    :ok = Native.accept(Gateway.ref(gateway), false)
    Store.put(gateway, {Activation, :waiting}, true)

    log =
      capture_log(fn ->
        start_supervised!({Startup, {Gateway.config(gateway), 500}})
        assert get(gateway, "a.local") == {200, "a"}
      end)

    assert log =~ "after 0.5 s not ready: #{inspect(web.endpoint)} does not listen"
  end

  defp load(port, stop?, test, answers) do
    if :atomics.get(stop?, 1) == 1 do
      answers
    else
      answer = ask({127, 0, 0, 1}, port)

      with {200, pid} <- answer,
           false <- is_map_key(answers, answer),
           do: send(test, {:answered, pid})

      load(port, stop?, test, Map.update(answers, answer, 1, &(&1 + 1)))
    end
  end

  defp hear(address) do
    {:ok, socket} = :gen_udp.open(0, [:local, :binary, active: true, ifaddr: {:local, address}])
    socket
  end

  defp heard(socket, wanted) do
    assert_receive {:udp, ^socket, _from, _port, text}, 30_000
    if text =~ wanted, do: text, else: heard(socket, wanted)
  end

  for {what, variable} <- [
        {"a path", "DIRECTORY/notify"},
        {"an abstract name", "@mesh-test-UNIQUE"}
      ] do
    test "systemd is told READY with MAINPID, and STOPPING, at #{what}", %{directory: directory} do
      variable =
        unquote(variable)
        |> String.replace("DIRECTORY", directory)
        |> String.replace("UNIQUE", "#{System.unique_integer([:positive])}#{System.pid()}")

      address = with "@" <> name <- variable, do: <<0, name::binary>>

      socket = hear(address)
      environment = [{"NOTIFY_SOCKET", variable}]
      {launcher, port} = launch(["=tcp:127.0.0.1"], {127, 0, 0, 1}, environment)
      {_log, pid} = started(launcher)
      text = heard(socket, "READY")
      assert text == "READY=1\nMAINPID=#{pid}\nSTATUS=serving on 127.0.0.1:#{port}"
      # A request that the drain waits for is not needed: it is told before.
      stop(launcher)
      assert heard(socket, "STOPPING") =~ "STOPPING=1\n"
    end
  end

  test "a VM that takes the port over is ready then, and the other one does not tell STOPPING",
       %{directory: directory} do
    File.chmod!(directory, 0o700)
    [one, two] = for name <- ~w(one two), do: Path.join(directory, name)
    {told_by_one, told_by_two} = {hear(one), hear(two)}
    handover = {"HANDOVER", Path.join(directory, "gateway.sock")}

    {first, port} = launch(["=tcp:127.0.0.1"], {127, 0, 0, 1}, [handover, {"NOTIFY_SOCKET", one}])
    assert heard(told_by_one, "READY") =~ "serving on"
    {_log, _pid} = started(first)

    environment = [handover, {"NOTIFY_SOCKET", two}, {"GATEWAY_PORT", "#{port}"}]
    {second, 0} = launch([], {127, 0, 0, 1}, environment)
    {_log, pid} = started(second)
    assert heard(told_by_two, "READY") =~ "MAINPID=#{pid}\n"
    assert ask({127, 0, 0, 1}, port) == {200, pid}

    # For systemd, the unit goes on with the other process.
    stop(first)
    rest(first, [])
    refute_received {:udp, ^told_by_one, _from, _port, "STOPPING" <> _}
    assert ask({127, 0, 0, 1}, port) == {200, pid}
    stop(second)
    assert heard(told_by_two, "STOPPING") =~ "STOPPING=1\n"
  end

  test "a socket for IPv4 and IPv6 is handed over for both, and again", %{directory: directory} do
    File.chmod!(directory, 0o700)
    handover = {"HANDOVER", Path.join(directory, "gateway.sock")}
    {first, port} = launch(["=tcp:::"], :any, [handover])
    {_log, _pid} = started(first)

    for _ <- 1..2 do
      {launcher, 0} = launch([], :any, [handover, {"GATEWAY_PORT", "#{port}"}])
      {lines, _line} = read_to(launcher, "gateway handover: has the port")
      [pid] = for "started " <> pid <- lines, do: pid
      for ip <- [{127, 0, 0, 1}, @loopback6], do: assert(ask(ip, port) == {200, pid})
    end
  end

  for {what, variable, why} <- [
        {"nothing listens", "/nonexistent/notify", "no such file or directory"},
        {"is another form", "vsock:2:1234", "expected a path that begins with / or a name"},
        {"is too long", "/" <> String.duplicate("x", 200), "which has more than 107 bytes"}
      ] do
    test "a NOTIFY_SOCKET where or which #{what} costs one line, and the gateway serves" do
      environment = [{"NOTIFY_SOCKET", unquote(variable)}]
      {launcher, port} = launch(["=tcp:127.0.0.1"], {127, 0, 0, 1}, environment)
      {log, pid} = started(launcher)
      assert ask({127, 0, 0, 1}, port) == {200, pid}
      # READY or STOPPING is the first that cannot be told.
      stop(launcher)
      log = Enum.join([log | rest(launcher, [])], "\n")
      assert [_before, after_it] = String.split(log, "cannot tell systemd its state")
      assert after_it =~ unquote(why)
    end
  end

  defp rest(launcher, read) do
    receive do
      {^launcher, {:data, {:eol, line}}} -> rest(launcher, [line | read])
      {^launcher, {:exit_status, 0}} -> Enum.reverse(read)
    after
      30_000 -> flunk("the VM runs on")
    end
  end
end
