defmodule ExServiceMeshRouter.InVmTest do
  # Not async: tests attach to telemetry events of all endpoints.
  use ExServiceMeshRouter.GatewayCase

  import ExServiceMeshRouter.EndpointStandIn
  import ExUnit.CaptureLog

  alias Bandit.Pipeline, as: Conn
  alias ExServiceMeshRouter.InVm.Dispatchers

  setup context do
    %{name: name, application: application, endpoint: endpoint} = unique("vm")
    test = self()

    settings =
      Keyword.merge(
        [
          adapter: Bandit.PhoenixAdapter,
          url: [host: "#{name}.local"],
          server: true,
          http: false,
          # A request through the socket of a stand-in has no path.
          plug: &plug(Map.get(&1, :path, "/socket"), &1, test)
        ],
        Map.get(context, :settings, [])
      )

    define(application, endpoint, settings)
    options = Keyword.merge([in_vm: :auto], Map.get(context, :options, []))
    gateway = start_gateway([discover: [only: [application]]] ++ options)
    start_supervised!(Supervisor.child_spec(endpoint, restart: :temporary))
    settle(gateway)
    %{gateway: gateway, endpoint: endpoint, host: "#{name}.local", application: application}
  end

  # What an endpoint of these tests does, by the path.
  defp plug("/who", conn, _test) do
    {module, transport} = conn.adapter
    peer = module.get_peer_data(transport)
    inspect({conn.remote_ip, conn.scheme, conn.host, conn.port, Conn.version(conn), peer.address})
  end

  defp plug("/echo", conn, _test) do
    {:ok, body, conn} = Conn.read(conn)
    Conn.respond(conn, 200, [], body)
  end

  defp plug("/parts", conn, _test), do: parts(conn, [])

  defp plug("/patient", conn, _test) do
    {:ok, _body, conn} = Conn.read(conn, read_timeout: 50)
    Conn.respond(conn, 200, [], "read")
  end

  defp plug("/chunked", conn, _test) do
    {:ok, conn} = conn |> Conn.chunked(200) |> Conn.chunk("one")
    {:ok, conn} = Conn.chunk(conn, ["two", "three"])
    {:ok, conn} = Conn.chunk(conn, "")
    conn
  end

  defp plug("/file", conn, _test), do: Conn.file(conn, __ENV__.file, 10, 20)

  defp plug("/hints", conn, _test) do
    {:ok, body, conn} = conn |> Conn.inform(103, [{"link", "</x>"}]) |> Conn.read()
    Conn.respond(conn, 200, [], body)
  end

  defp plug("/early", conn, _test),
    do: conn |> Conn.inform(103, [{"link", "</x>"}]) |> Conn.respond(200, [], "late")

  defp plug("/process", conn, _test) do
    before = Process.get(:seen)
    Process.put(:seen, true)
    Conn.respond(conn, 200, [], inspect({before, Process.get(:"$ancestors") != nil}))
  end

  defp plug("/raise", _conn, _test), do: raise("before the response")

  defp plug("/raise-after", conn, _test) do
    {:ok, _conn} = conn |> Conn.chunked(200) |> Conn.chunk("a part")
    raise "after the head"
  end

  defp plug("/kill", _conn, _test), do: Process.exit(self(), :kill)
  defp plug("/header", conn, _test), do: Conn.respond(conn, 200, [{"x-name", "a\r\nb: c"}], "")

  defp plug("/wait", conn, test) do
    send(test, {:waits, self()})

    receive do
      :go -> Conn.respond(conn, 200, [], "waited")
    end
  end

  defp plug("/endless", conn, test) do
    send(test, {:streams, self()})
    send(test, {:stream_ended, endless(Conn.chunked(conn, 200))})
    conn
  end

  defp plug(_path, _conn, _test), do: "plain"

  defp parts(conn, sizes) do
    case Conn.read(conn, length: 100_000, read_length: 30_000) do
      {:more, part, conn} -> parts(conn, [byte_size(part) | sizes])
      {:ok, part, conn} -> Conn.respond(conn, 200, [], inspect([byte_size(part) | sizes]))
    end
  end

  defp endless(conn) do
    case Conn.chunk(conn, :binary.copy("x", 65_536)) do
      {:ok, conn} -> endless(conn)
      error -> error
    end
  end

  defp ask(gateway, host, path, fields \\ "", body \\ "", method \\ "GET") do
    bytes =
      "#{method} #{path} HTTP/1.1\r\nHost: #{host}:4000\r\nConnection: close\r\n#{fields}\r\n#{body}"

    gateway |> url() |> RawClient.exchange(bytes)
  end

  defp service(gateway), do: gateway |> ExServiceMeshRouter.services() |> hd()

  describe "a request" do
    test "reaches a process that sees the client", %{gateway: gateway, host: host} do
      assert {200, text} = answer(ask(gateway, host, "/who"))

      assert text ==
               inspect({{127, 0, 0, 1}, :http, host, 4000, :"HTTP/1.1", {127, 0, 0, 1}})
    end

    @tag options: [trusted_proxies: ["127.0.0.1"]]
    test "has the client that a trusted proxy names", %{gateway: gateway, host: host} do
      fields =
        "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n" <>
          "X-Forwarded-Host: shop.example.com\r\nX-Forwarded-Port: 443\r\n"

      assert {200, text} = answer(ask(gateway, host, "/who", fields))
      client = {192, 0, 2, 7}
      assert text == inspect({client, :https, "shop.example.com", 443, :"HTTP/1.1", client})
    end

    test "has a process of its own on a kept connection", %{gateway: gateway, host: host} do
      socket = RawClient.connect(url(gateway))

      for _ <- 1..3 do
        RawClient.send(socket, "GET /process HTTP/1.1\r\nHost: #{host}\r\n\r\n")
        assert RawClient.read_until(socket, "{nil, true}") =~ "HTTP/1.1 200"
      end
    end

    test "emits Bandit's events, with the options of the server", %{gateway: gateway, host: host} do
      test = self()
      event = [:bandit, :request, :start]
      handler = fn _, _, metadata, _ -> send(test, {:event, metadata}) end
      apply(:telemetry, :attach, [{__MODULE__, test}, event, handler, nil])
      ask(gateway, host, "/plain")
      apply(:telemetry, :detach, [{__MODULE__, test}])

      assert_receive {:event, metadata}
      assert is_reference(metadata.connection_telemetry_span_context)
      assert %{http: [], http_1: [], http_2: [], websocket: []} = metadata.options
    end

    test "is counted as any other", %{gateway: gateway, host: host, endpoint: endpoint} do
      ask(gateway, host, "/plain")
      name = inspect(endpoint)
      eventually(1, fn -> ExServiceMeshRouter.stats(gateway).services[name].requests end)
    end
  end

  describe "a request body" do
    test "is read", %{gateway: gateway, host: host} do
      body = :binary.copy("0123456789", 200_000)
      fields = "Content-Length: #{byte_size(body)}\r\n"
      assert {200, ^body} = answer(ask(gateway, host, "/echo", fields, body, "POST"))
    end

    test "is read without the framing of its chunks", %{gateway: gateway, host: host} do
      fields = "Transfer-Encoding: chunked\r\n"
      body = "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
      assert {200, "abcdefg"} = answer(ask(gateway, host, "/echo", fields, body, "POST"))
    end

    test "is read in parts of the length that the plug asks for", %{gateway: gateway, host: host} do
      fields = "Content-Length: 250000\r\n"
      body = :binary.copy("x", 250_000)
      assert {200, text} = answer(ask(gateway, host, "/parts", fields, body, "POST"))
      assert text == "[50000, 100000, 100000]"
    end

    test "that does not arrive in time is a 408", %{gateway: gateway, host: host} do
      log =
        capture_log(fn ->
          assert {408, ""} =
                   answer(ask(gateway, host, "/patient", "Content-Length: 9\r\n", "", "POST"))
        end)

      assert log =~ "Read timeout"
    end

    test "is asked for with 100 (Continue) at the first read", %{gateway: gateway, host: host} do
      socket = RawClient.connect(url(gateway))
      fields = "Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n"
      RawClient.send(socket, "POST /echo HTTP/1.1\r\nHost: #{host}\r\n#{fields}\r\n")
      assert RawClient.read_until(socket, "\r\n\r\n") =~ "HTTP/1.1 100"
      RawClient.send(socket, "abc")
      assert {200, "abc"} = answer(RawClient.read_to_end(socket))
    end

    test "is asked for even after another interim response", %{gateway: gateway, host: host} do
      socket = RawClient.connect(url(gateway))
      fields = "Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n"
      RawClient.send(socket, "POST /hints HTTP/1.1\r\nHost: #{host}\r\n#{fields}\r\n")
      assert RawClient.read_until(socket, "HTTP/1.1 100 Continue\r\n\r\n") =~ "HTTP/1.1 103"
      RawClient.send(socket, "abc")
      assert {200, "abc"} = answer(RawClient.read_to_end(socket))
    end
  end

  describe "a response" do
    test "is sent in chunks", %{gateway: gateway, host: host} do
      bytes = ask(gateway, host, "/chunked")
      assert bytes =~ ~r/transfer-encoding: chunked/i
      assert bytes =~ "3\r\none\r\n"
      assert String.ends_with?(bytes, "0\r\n\r\n")
    end

    test "is sent from a part of a file", %{gateway: gateway, host: host} do
      part = __ENV__.file |> File.read!() |> binary_part(10, 20)
      assert {200, ^part} = answer(ask(gateway, host, "/file"))
    end

    test "may have an interim one before it", %{gateway: gateway, host: host} do
      assert "HTTP/1.1 103" <> _ = bytes = ask(gateway, host, "/early")
      assert bytes =~ "link: </x>"
      assert String.ends_with?(bytes, "late")
    end

    test "to HEAD has no body", %{gateway: gateway, host: host} do
      bytes = ask(gateway, host, "/plain", "", "", "HEAD")
      assert bytes =~ "content-length: 5\r\n"
      assert String.ends_with?(bytes, "\r\n\r\n")
    end

    test "is refused if a field would end the head", %{gateway: gateway, host: host} do
      log = capture_log(fn -> assert {500, ""} = answer(ask(gateway, host, "/header")) end)
      assert log =~ "cannot send the response"
    end

    test "waits for a client that does not read, and ends with it", %{
      gateway: gateway,
      host: host
    } do
      socket = RawClient.connect(url(gateway))
      RawClient.send(socket, "GET /endless HTTP/1.1\r\nHost: #{host}\r\n\r\n")
      assert_receive {:streams, pid}, 2_000
      eventually({:status, :waiting}, fn -> Process.info(pid, :status) end)
      {:memory, memory} = Process.info(pid, :memory)
      assert memory < 2_000_000
      :gen_tcp.close(socket)
      assert_receive {:stream_ended, {:error, :closed}}, 2_000
    end
  end

  describe "a failure" do
    test "before the response is a 500, and is logged", %{gateway: gateway, host: host} do
      log = capture_log(fn -> assert {500, ""} = answer(ask(gateway, host, "/raise")) end)
      assert log =~ "before the response"
    end

    test "after the head breaks the response off", %{gateway: gateway, host: host} do
      capture_log(fn ->
        bytes =
          try do
            ask(gateway, host, "/raise-after")
          rescue
            # A reset instead of the end of the stream.
            CaseClauseError -> ""
          end

        refute String.ends_with?(bytes, "0\r\n\r\n")
      end)
    end

    test "of the process is a 500 at once", %{gateway: gateway, host: host} do
      assert {500, ""} = answer(ask(gateway, host, "/kill"))
    end
  end

  describe "a client that disconnects" do
    defp disconnected(gateway, host) do
      socket = RawClient.connect(url(gateway))
      RawClient.send(socket, "GET /wait HTTP/1.1\r\nHost: #{host}\r\n\r\n")
      assert_receive {:waits, pid}, 2_000
      monitor = Process.monitor(pid)
      # Waits until the monitor is set.
      assert Process.alive?(pid)
      :ok = :inet.setopts(socket, linger: {true, 0})
      :gen_tcp.close(socket)
      {pid, monitor}
    end

    @tag options: [on_disconnect: :exit]
    test "ends its process with on_disconnect: :exit", %{gateway: gateway, host: host} do
      {_pid, monitor} = disconnected(gateway, host)
      assert_receive {:DOWN, ^monitor, :process, _, :shutdown}, 2_000
    end

    @tag options: [on_disconnect: :exit]
    test "ends its process also when it only closes its sending side", context do
      %{gateway: gateway, host: host} = context
      {socket, _pid, monitor} = half_closed(gateway, host)
      assert_receive {:DOWN, ^monitor, :process, _, :shutdown}, 2_000
      assert RawClient.read_to_end(socket) == ""
    end

    test "gets its response after it has closed its sending side otherwise", context do
      %{gateway: gateway, host: host, application: application} = context
      # The option is that of the gateway by which a request comes.
      options = [in_vm: :auto, on_disconnect: :exit, discover: [only: [application]]]
      other = start_gateway(options)
      settle(other)
      {socket, pid, _monitor} = half_closed(gateway, host)
      {_socket, _pid, monitor} = half_closed(other, host)
      assert_receive {:DOWN, ^monitor, :process, _, :shutdown}, 2_000
      send(pid, :go)
      assert {200, "waited"} = socket |> RawClient.read_to_end() |> answer()
    end

    defp half_closed(gateway, host) do
      socket = RawClient.connect(url(gateway))
      fields = "Host: #{host}\r\nConnection: close\r\n"
      RawClient.send(socket, "GET /wait HTTP/1.1\r\n#{fields}\r\n")
      assert_receive {:waits, pid}, 2_000
      monitor = Process.monitor(pid)
      # Waits until the monitor is set.
      assert Process.alive?(pid)
      :ok = :gen_tcp.shutdown(socket, :write)
      {socket, pid, monitor}
    end

    test "does not end it otherwise", %{gateway: gateway, host: host} do
      {pid, monitor} = disconnected(gateway, host)
      name = hd(ExServiceMeshRouter.services(gateway)).name
      errors = fn -> ExServiceMeshRouter.stats(gateway).services[name].errors.client_gone end
      eventually(1, errors)
      assert Process.alive?(pid)
      capture_log(fn -> send(pid, :go) && assert_receive({:DOWN, ^monitor, _, _, _}, 2_000) end)
    end
  end

  describe "an endpoint" do
    test "is said to be in VM", %{gateway: gateway, host: host} do
      assert service(gateway).in_vm == true
      assert inspect(ExServiceMeshRouter.explain(gateway, host)) =~ "in VM: only requests for"
    end

    test "that stops ends its dispatchers, and lets requests end", context do
      %{gateway: gateway, host: host, endpoint: endpoint} = context
      dispatchers = Dispatchers.all(endpoint)
      assert length(dispatchers) == System.schedulers_online()
      task = Task.async(fn -> ask(gateway, host, "/wait") end)
      assert_receive {:waits, pid}, 2_000
      stopping = Task.async(fn -> Supervisor.stop(endpoint, :shutdown) end)
      eventually(false, fn -> Enum.any?(dispatchers, &Process.alive?/1) end)
      send(pid, :go)
      assert {200, "waited"} = answer(Task.await(task))
      Task.await(stopping)
    end

    test "gets new dispatchers when one is killed", %{gateway: gateway, host: host} = context do
      for pid <- Dispatchers.all(context.endpoint) do
        Process.exit(pid, :kill)
        assert {200, _} = get(gateway, host)
      end

      eventually(System.schedulers_online(), fn ->
        length(Enum.filter(Dispatchers.all(context.endpoint), &Process.alive?/1))
      end)

      settle(gateway)
      assert service(gateway).state == :listening
      assert {200, _} = get(gateway, host)
    end

    test "has no dispatchers after the gateway", %{gateway: gateway, endpoint: endpoint} do
      stop_supervised(gateway)
      assert Dispatchers.all(endpoint) == []
    end
  end

  describe "an endpoint that does not fit" do
    @describetag options: [in_vm: :auto]

    @tag settings: [adapter: ExServiceMeshRouter.EndpointStandIn.Adapter, says: "socket"]
    test "is served through its socket, and the reason is said", context do
      %{gateway: gateway, host: host} = context
      assert {200, "socket"} = get(gateway, host)
      assert service(gateway).in_vm == "its server is not Bandit"
      assert Dispatchers.all(context.endpoint) == []

      assert inspect(ExServiceMeshRouter.explain(gateway, host)) =~
               "not in VM: its server is not Bandit"
    end

    @tag options: [in_vm: [Some.Other.Endpoint]]
    test "is not tried if in_vm does not name it", %{gateway: gateway, endpoint: endpoint} do
      assert service(gateway).in_vm == false
      assert Dispatchers.all(endpoint) == []
    end
  end
end
