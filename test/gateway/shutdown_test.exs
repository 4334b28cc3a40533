defmodule ExServiceMeshRouter.Gateway.ShutdownTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  # A node whose web application started after the gateway, as it does with a dependency. OTP stops
  # it first, and that takes longer than the gateway waits between two looks at the applications. The
  # endpoint itself is in the test, so that the test decides when it answers.
  @script """
  Logger.configure(level: :error)
  [port] = System.argv()
  Application.put_env(:ex_service_mesh_router, :server, true)
  Application.put_env(:ex_service_mesh_router, :port, 0)
  {:ok, _} = Application.ensure_all_started(:ex_service_mesh_router)

  defmodule Web do
    use Application
    def start(_type, _arguments), do: Supervisor.start_link([], strategy: :one_for_one)

    def stop(_state) do
      IO.puts("web stops")
      Process.sleep(4_000)
    end
  end

  keys = [description: ~c"web", vsn: ~c"1", modules: [], registered: [], applications: [], mod: {Web, []}]
  :ok = :application.load({:application, :web, keys})
  :ok = :application.start(:web)
  :ok = ExServiceMeshRouter.put_service("slow.local", "http://127.0.0.1:" <> port)

  ready = fn ready ->
    case :application.which_applications() do
      [{:ex_service_mesh_router_drain, _, _} | _] -> :ok
      _ -> receive do after 10 -> ready.(ready) end
    end
  end

  ready.(ready)
  IO.puts("ready \#{ExServiceMeshRouter.port()} \#{System.pid()}")
  # Not here: a script whose input ends when the node stops has more to say.
  spawn(fn -> if IO.gets("") == "stop\\n", do: System.stop() end)
  Process.sleep(:infinity)
  """

  for {how, call} <- [SIGTERM: :sigterm, "System.stop/0": :stop] do
    test "on #{how} requests in flight finish before the applications stop, and nothing is logged" do
      {:ok, endpoint} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
      {:ok, endpoint_port} = :inet.port(endpoint)
      {node, gateway_port, pid} = start_node(endpoint_port)

      {:ok, client} = :gen_tcp.connect({127, 0, 0, 1}, gateway_port, [:binary, active: false])
      :ok = :gen_tcp.send(client, request("slow.local"))
      {:ok, upstream} = :gen_tcp.accept(endpoint, 5_000)
      {:ok, "GET / " <> _} = :gen_tcp.recv(upstream, 0, 5_000)

      end_node(unquote(call), node, pid)
      eventually(:refused, 10_000, fn -> connect(gateway_port) end)
      refute_received {^node, {:data, "web stops" <> _}}

      :ok = :gen_tcp.send(upstream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")
      assert {200, "done"} = client |> read_all("") |> answer()
      assert read_node(node, "") == {0, "web stops\n"}
    end
  end

  # The same, with a web application that takes its time, to start for ever or to stop for a moment.
  @boot """
  Logger.configure(level: :error)
  [slow] = System.argv()
  Application.put_env(:ex_service_mesh_router, :server, true)
  Application.put_env(:ex_service_mesh_router, :port, 0)
  {:ok, _} = Application.ensure_all_started(:ex_service_mesh_router)

  defmodule Endpoint do
    use GenServer
    def start_link(slow), do: GenServer.start_link(__MODULE__, slow)

    def init(slow) do
      Process.flag(:trap_exit, true)
      IO.puts("ready 0 \#{System.pid()}")
      if slow == "start", do: Process.sleep(:infinity)
      {:ok, slow}
    end

    # Longer than the gateway leaves a starting system in peace.
    def terminate(_reason, _slow), do: Process.sleep(1_000)
  end

  defmodule Web do
    use Application
    def start(_type, slow), do: Supervisor.start_link([{Endpoint, slow}], strategy: :one_for_one)
  end

  keys = [vsn: ~c"1", modules: [], registered: [], applications: [], mod: {Web, slow}]
  :ok = :application.load({:application, :web, keys})
  # Not here: a script that fails when the node stops has more to say.
  spawn(fn -> :application.start(:web) end)
  Process.sleep(:infinity)
  """

  for {moment, slow} <- ["are starting": "start", "have just started": "stop"] do
    test "a SIGTERM while the applications #{moment} stops the node, and nothing is logged" do
      {node, _port, pid} = start_node(@boot, unquote(slow))
      end_node(:sigterm, node, pid)
      assert read_node(node, "") == {0, ""}
    end
  end

  defp read_node(node, read) do
    receive do
      {^node, {:data, data}} -> read_node(node, read <> data)
      {^node, {:exit_status, status}} -> {status, read}
    after
      20_000 -> flunk("the node runs on, and said: #{read}")
    end
  end

  defp start_node(script \\ @script, argument) do
    paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])
    arguments = paths ++ ["-e", script, "--", "#{argument}"]
    elixir = System.find_executable("elixir")
    options = [:binary, :exit_status, :stderr_to_stdout, args: arguments]
    node = Port.open({:spawn_executable, elixir}, options)
    assert_receive {^node, {:data, "ready " <> rest}}, 30_000
    [port, pid] = rest |> String.trim() |> String.split(" ")
    {node, String.to_integer(port), pid}
  end

  defp end_node(:sigterm, _node, pid), do: {_, 0} = System.cmd("kill", ["-TERM", pid])
  defp end_node(:stop, node, _pid), do: Port.command(node, "stop\n")

  defp connect(port) do
    with {:ok, socket} <- :gen_tcp.connect({127, 0, 0, 1}, port, []) do
      :gen_tcp.close(socket)
      :accepted
    else
      {:error, :econnrefused} -> :refused
      # It was in the queue of the listener that closes at this moment.
      {:error, :econnreset} -> :reset
    end
  end

  defp read_all(socket, read) do
    case :gen_tcp.recv(socket, 0, 10_000) do
      {:ok, bytes} -> read_all(socket, read <> bytes)
      {:error, :closed} -> read
    end
  end
end
