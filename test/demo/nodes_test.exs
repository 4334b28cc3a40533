defmodule Demo.NodesTest do
  # Runs `make demo NODES=4` as a user does, and sends signals to its nodes under load.
  #
  #     DEMO_GETS=100000 mix test test/demo/nodes_test.exs
  #
  # asks so many times for each signal and prints what was seen.
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.{Cluster, RawClient}

  @gets "DEMO_GETS" |> System.get_env("300") |> String.to_integer()

  if reason = Cluster.unavailable() do
    IO.puts("Skipped: several nodes of the demo, because #{reason}.")
    @moduletag skip: reason
  end

  @moduletag timeout: 60_000 + 100 * @gets

  test "no GET fails at the other nodes when a node stops, freezes or is killed" do
    demo = start_demo()
    assert [1, 2, 3, 4] = Map.keys(demo.nodes)

    # Each node answers for both. Services run on the nodes that the text says.
    for number <- 1..4, service <- ["auth", "billing"] do
      assert {200, node} = get(RawClient.connect(demo.nodes[number].url), service)
      assert {service, number, node} in places(service, number)
    end

    load = start_load(demo)
    await(load, 2 * @gets)
    assert served_by(load) == ["node 1", "node 2", "node 3"]

    signal(demo, 2, "STOP")
    await(load, @gets)
    forget(load)
    await(load, @gets)
    refute "node 2" in served_by(load)

    signal(demo, 2, "CONT")
    await_node(load, "node 2")

    signal(demo, 2, "KILL")
    await_line(demo, "node 2 has ended (status 137)")
    await(load, @gets)

    signal(demo, 3, "TERM")
    await_line(demo, "node 3 has ended (status 0)")
    forget(load)
    await(load, @gets)
    assert served_by(load) == ["node 1"]

    {answers, slowest} = stop_load(load)
    assert failures(load) == []

    if System.get_env("DEMO_GETS"),
      do: IO.puts("#{answers} GETs, none failed, the slowest took #{slowest} ms")

    System.cmd("kill", [demo.pid])
    assert_receive {_port, {:exit_status, 143}}, 10_000
    for {_number, %{pid: pid}} <- demo.nodes, do: refute(File.exists?("/proc/#{pid}"))
  end

  test "what cannot be started is said" do
    for {nodes, port, text} <- [
          {"0", "4000", "NODES=0 is not a number from 1 to 9."},
          {"x", "4000", "NODES=x is not a number from 1 to 9."},
          {"3", "65534", "PORT=65534 is not a port with 2 more after it."},
          {"3", "x", "PORT=x is not a port with 2 more after it."}
        ] do
      env = [{"NODES", nodes}, {"PORT", port}]

      assert {said, 1} =
               System.cmd(Path.expand("scripts/demo"), [], env: env, stderr_to_stdout: true)

      assert said == text <> "\n"
    end
  end

  defp places("billing", number), do: [{"billing", number, "node 4"}]
  # The local one if there is one.
  defp places("auth", 4), do: for(node <- 1..3, do: {"auth", 4, "node #{node}"})
  defp places("auth", number), do: [{"auth", number, "node #{number}"}]

  defp start_demo do
    env = [{~c"NODES", ~c"4"}, {~c"PORT", ~c"0"}]
    options = [:binary, :exit_status, :stderr_to_stdout, line: 1_000, env: env]
    port = Port.open({:spawn_executable, "scripts/demo"}, options)
    {:os_pid, pid} = Port.info(port, :os_pid)
    pid = Integer.to_string(pid)
    on_exit(fn -> System.cmd("kill", [pid], stderr_to_stdout: true) end)
    demo = %{port: port, pid: pid}
    nodes = for number <- 1..4, do: {number, %{pid: pid_of(demo, number)}}
    nodes = for {number, node} <- nodes, do: {number, Map.put(node, :url, url(demo, number))}
    Map.put(demo, :nodes, Map.new(nodes))
  end

  defp pid_of(demo, number) do
    [_, pid] = Regex.run(~r/pid (\d+)/, await_line(demo, "node #{number} pid "))
    pid
  end

  defp url(demo, number) do
    [_, port] = Regex.run(~r/localhost:(\d+)/, await_line(demo, "  node #{number}   http:"))
    "http://127.0.0.1:#{port}"
  end

  defp await_line(%{port: port} = demo, beginning) do
    receive do
      {^port, {:data, {_, line}}} ->
        if String.starts_with?(line, beginning), do: line, else: await_line(demo, beginning)

      {^port, {:exit_status, status}} ->
        flunk("the demo ended with status #{status} before it said #{inspect(beginning)}")
    after
      60_000 -> flunk("the demo did not say #{inspect(beginning)}")
    end
  end

  defp signal(demo, number, signal),
    do: {_, 0} = System.cmd("kill", ["-#{signal}", demo.nodes[number].pid])

  defp get(socket, service) do
    request = "GET /headers HTTP/1.1\r\nHost: #{service}.localhost\r\n\r\n"
    RawClient.send(socket, request)
    answer = RawClient.read_until(socket, "}\n")
    [_, status] = Regex.run(~r/\AHTTP\/1.1 (\d+) /, answer)
    [_, node] = Regex.run(~r/x-served-by: (.*?)\r\n/, answer)
    {String.to_integer(status), node}
  end

  # Clients of node 1 and node 4, half of which have a new connection for each request.
  defp start_load(demo) do
    load = %{
      counter: :counters.new(1, []),
      table: :ets.new(:load, [:public])
    }

    clients =
      for number <- [1, 4], keep? <- [true, false, true, false] do
        Task.async(fn -> client(load, demo.nodes[number].url, keep?, nil, 0) end)
      end

    Map.put(load, :clients, clients)
  end

  defp client(load, url, keep?, socket, slowest) do
    receive do
      :stop -> slowest
    after
      0 ->
        start = now()
        socket = ask(load, url, socket)
        if socket && not keep?, do: :gen_tcp.close(socket)
        client(load, url, keep?, if(keep?, do: socket), max(slowest, now() - start))
    end
  end

  defp ask(load, url, socket) do
    socket = socket || RawClient.connect(url)
    {200, node} = get(socket, "auth")
    :ets.insert(load.table, {{:node, node}})
    :counters.add(load.counter, 1, 1)
    socket
  rescue
    error ->
      :ets.insert(load.table, {{:failure, url, Exception.message(error)}})
      nil
  end

  defp now, do: System.monotonic_time(:millisecond)

  defp await(load, more), do: await_count(load, :counters.get(load.counter, 1) + more)

  defp await_count(load, wanted),
    do: until(load, fn -> :counters.get(load.counter, 1) >= wanted end)

  defp await_node(load, node), do: until(load, fn -> node in served_by(load) end)

  defp until(load, fun, deadline \\ now() + 30_000 + 20 * @gets) do
    cond do
      fun.() ->
        :ok

      now() > deadline ->
        flunk("failed: #{inspect(failures(load))}, served by: #{inspect(served_by(load))}")

      true ->
        receive do
        after
          5 -> until(load, fun, deadline)
        end
    end
  end

  defp served_by(load),
    do: for({{:node, node}} <- :ets.tab2list(load.table), do: node) |> Enum.sort()

  defp forget(load), do: :ets.match_delete(load.table, {{:node, :_}})
  defp failures(load), do: :ets.match_object(load.table, {{:failure, :_, :_}})

  defp stop_load(load) do
    for %{pid: pid} <- load.clients, do: send(pid, :stop)
    slowest = load.clients |> Task.await_many(30_000) |> Enum.max()
    {:counters.get(load.counter, 1), slowest}
  end
end
