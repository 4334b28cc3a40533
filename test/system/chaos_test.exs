defmodule ExServiceMeshRouter.System.ChaosTest do
  # Kills each process of a gateway under load: traffic depends on the data plane alone, and no request
  # may fail. For longer, and with a report:
  #
  #     CHAOS_SECONDS=60 mix test test/system/chaos_test.exs
  #
  # Not async: it is the application's own gateway, which has all of the processes.
  use ExServiceMeshRouter.GatewayCase

  import ExServiceMeshRouter.EndpointStandIn, only: [define: 3, unique: 1]

  alias ExServiceMeshRouter.{Discovery, Listeners, Load, Tree}
  alias ExServiceMeshRouter.Gateway.Guard
  alias ExServiceMeshRouter.Http.Connection

  @moduletag :capture_log
  @moduletag timeout: 600_000

  @seconds "CHAOS_SECONDS" |> System.get_env("3") |> String.to_integer()

  @gateway ExServiceMeshRouter

  # Everything that a gateway can have: a found endpoint with a private listener, services that were
  # configured and put, the index, metrics, a log, and a request that takes as long as it is told.
  setup do
    test = self()
    %{application: application, endpoint: endpoint} = unique("chaos")
    host = "#{application}.local"
    # No `http:`, so that the gateway listens for it.
    define(application, endpoint,
      http: nil,
      server: true,
      says: host,
      url: [host: host]
    )

    start_supervised!(endpoint)

    slow = fn request ->
      send(test, {:asked, self()})
      receive do: (:answer -> {{200, [], "done"}, request})
    end

    start_gateway(
      name: @gateway,
      workers: 2,
      index: true,
      metrics: [port: 0],
      mesh: true,
      handover: handover_path(),
      doctor: [except: [:port_taken]],
      telemetry: [sample: 1.0],
      access_log: [to: :logger],
      discover: [only: [application]],
      services: %{
        "configured.local" => start_server("configured.local"),
        "slow.local" => start_server(slow),
        "ws.local" => start_server(&{Demo.WebSocket.upgrade(&1), &1})
      }
    )

    settle(@gateway)
    :ok = ExServiceMeshRouter.put_service("put.local", start_server("put.local"))
    hosts = ["configured.local", "put.local", host]
    for host <- hosts, do: assert(get(@gateway, host) == {200, host})
    %{hosts: hosts, endpoint: endpoint}
  end

  # Short, as the path of a socket must be.
  defp handover_path do
    directory = Path.join(System.tmp_dir!(), "handover#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf(directory) end)
    Path.join(directory, "gateway.sock")
  end

  defp listener(endpoint) do
    [{_, listener, _, _}] = Supervisor.which_children(endpoint)
    listener
  end

  defp ask_slowly do
    socket = @gateway |> url() |> RawClient.connect()
    RawClient.send(socket, request("slow.local"))
    assert_receive {:asked, handler}, 5_000
    {socket, handler}
  end

  defp answered_slowly({socket, handler}) do
    send(handler, :answer)
    assert socket |> RawClient.read_to_end() |> answer() == {200, "done"}
  end

  defp kinds, do: @gateway |> Tree.processes() |> Enum.map(&elem(&1, 0)) |> Enum.uniq()
  defp find(kind), do: for({^kind, pid} <- Tree.processes(@gateway), do: pid)

  test "no request is lost when any process is killed", context do
    services = ExServiceMeshRouter.services()
    top = Tree.top(@gateway)
    listener = listener(context.endpoint)
    # A connection to the index is kept by the data plane for a while.
    lasting = fn -> Enum.sort(kinds() -- [{:helper, Connection}]) end
    before = lasting.()
    load = Load.start(url(@gateway), context.hosts, "ws.local")
    Load.await(load, 100)

    for kind <- kinds() do
      slow = ask_slowly()

      for pid <- Enum.take(find(kind), 1) do
        monitor = Process.monitor(pid)
        Process.exit(pid, :kill)
        assert_receive {:DOWN, ^monitor, _, _, _}, 5_000
      end

      Load.await(load, 100)
      assert Load.failures(load) == [], "after #{inspect(kind)}"
      answered_slowly(slow)
    end

    Load.stop(load)
    assert Tree.top(@gateway) == top
    assert listener(context.endpoint) == listener
    # The route of each is as it was, and can be changed.
    same = fn services -> for it <- services, do: Map.delete(it, :since) end
    eventually(same.(services), fn -> same.(ExServiceMeshRouter.services()) end)
    :ok = ExServiceMeshRouter.put_service("later.local", start_server("later.local"))
    assert get(@gateway, "later.local") == {200, "later.local"}
    :ok = ExServiceMeshRouter.delete_service("put.local")
    assert {404, _} = get(@gateway, "put.local")
    eventually(before, 10_000, lasting)
  end

  test "an endpoint that is too busy to answer keeps its route when discovery crashes",
       context do
    [host] = context.hosts -- ["configured.local", "put.local"]
    discovery = find(Discovery)
    :sys.suspend(context.endpoint)
    for pid <- discovery, do: Process.exit(pid, :kill)
    eventually(true, fn -> find(Discovery) not in [discovery, []] end)
    # It has begun when it answers.
    for pid <- find(Discovery), do: :sys.get_state(pid)
    assert get(@gateway, host) == {200, host}
    :sys.resume(context.endpoint)
    settle(@gateway)
    assert get(@gateway, host) == {200, host}
  end

  test "a crash of the Listeners process stops no private listener", context do
    [host] = context.hosts -- ["configured.local", "put.local"]
    listener = listener(context.endpoint)
    [pid] = find(Listeners)
    :sys.terminate(pid, :crash)
    eventually(true, fn -> find(Listeners) not in [[pid], []] end)
    assert listener(context.endpoint) == listener
    assert get(@gateway, host) == {200, host}
    # With the gateway it goes, as if nothing had happened.
    stop_supervised!(@gateway)
    assert Supervisor.which_children(context.endpoint) == []
  end

  test "no request is lost when processes are killed in random order", context do
    top = Tree.top(@gateway)
    listener = listener(context.endpoint)
    load = Load.start(url(@gateway), context.hosts, "ws.local")
    slow = ask_slowly()
    killed = kill_until(System.monotonic_time(:millisecond) + @seconds * 1_000, load, %{})
    answered_slowly(slow)
    Load.await(load, 100)
    gap = Load.stop(load)

    report(load, gap, killed)
    assert Load.failures(load) == []
    assert Tree.top(@gateway) == top
    assert listener(context.endpoint) == listener
    assert "put.local" in Enum.map(ExServiceMeshRouter.services(), & &1.name)
  end

  # Ten a second, the time a round of requests takes. `%{kind => {killed, failed}}`.
  defp kill_until(deadline, load, killed) do
    if System.monotonic_time(:millisecond) > deadline do
      killed
    else
      {kind, pid} = @gateway |> Tree.processes() |> Enum.random()
      before = length(Load.failures(load))
      Process.exit(pid, :kill)
      Process.sleep(100)
      failed = length(Load.failures(load)) - before

      kill_until(
        deadline,
        load,
        Map.update(killed, kind, {1, failed}, fn {n, f} -> {n + 1, f + failed} end)
      )
    end
  end

  defp report(load, gap, killed) do
    if System.get_env("CHAOS_SECONDS") do
      IO.puts(
        "\n#{Load.answers(load)} requests, #{length(Load.failures(load))} failed, longest gap #{gap} ms"
      )

      for {kind, {n, failed}} <- Enum.sort(killed),
          do: IO.puts("  #{inspect(kind)}: killed #{n} times, #{failed} failed")
    end
  end

  test "requests are answered when the supervisor is killed, and the gateway comes back" do
    slow = ask_slowly()
    monitor = Process.monitor(Tree.top(@gateway))
    Process.exit(Tree.top(@gateway), :kill)
    assert_receive {:DOWN, ^monitor, _, _, _}
    answered_slowly(slow)
    eventually(true, 10_000, fn -> ExServiceMeshRouter.services() != [] end)
    assert get(@gateway, "configured.local") == {200, "configured.local"}
  end

  describe "a guard" do
    defmodule Fragile do
      use GenServer

      def start_link({test, fails}) do
        send(test, {:start, self()})

        if :counters.get(fails, 1) == 0,
          do: GenServer.start_link(__MODULE__, test),
          else: {:error, :broken}
      end

      @impl true
      def init(test) do
        send(test, {:running, self()})
        {:ok, test}
      end
    end

    setup do
      fails = :counters.new(1, [])
      ExServiceMeshRouter.Gateway.Store.new(Guarded)
      %{fails: fails, spec: {Guard, {Guarded, {Fragile, {self(), fails}}}}}
    end

    test "retries a process that cannot start, and its supervisor does not notice", context do
      supervisor =
        start_supervised!(%{
          id: :top,
          start: {Supervisor, :start_link, [[context.spec], [strategy: :one_for_one]]},
          type: :supervisor
        })

      assert_receive {:running, pid}
      :counters.put(context.fails, 1, 1)
      Process.exit(pid, :kill)
      for _ <- 1..6, do: assert_receive({:start, _}, 5_000)
      :counters.put(context.fails, 1, 0)
      assert_receive {:running, _pid}, 5_000
      assert [{Fragile, guard, _, _}] = Supervisor.which_children(supervisor)
      # Nor does a guard that is killed leave two of them.
      Process.exit(guard, :kill)
      assert_receive {:running, last}, 5_000
      assert Process.alive?(last)
    end

    test "fails its supervisor if the first start fails", context do
      :counters.put(context.fails, 1, 1)
      Process.flag(:trap_exit, true)

      assert {:error, {:shutdown, {:failed_to_start_child, Fragile, :broken}}} =
               Supervisor.start_link([context.spec], strategy: :one_for_one)
    end
  end
end
