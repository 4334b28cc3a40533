defmodule ExServiceMeshRouter.System.HandoverTest do
  # VMs that take a port over from one another, with real VMs and clients. For more of them, with figures:
  #
  #     HANDOVERS=20 mix test test/system/handover_test.exs
  use ExServiceMeshRouter.GatewayCase

  alias ExServiceMeshRouter.{Cluster, Handover, HandoverLoad, HandoverVm}

  @moduletag :capture_log
  @moduletag timeout: :infinity

  @pause ~r/no connections were accepted for (\d+) ms/
  @handovers "HANDOVERS" |> System.get_env("3") |> String.to_integer()

  if reason = Cluster.unavailable() do
    IO.puts("test/system/handover_test.exs is skipped: #{reason}")
    @moduletag skip: reason
  end

  setup do
    directory = Path.join(System.tmp_dir!(), "handover#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf(directory) end)
    %{path: Path.join(directory, "gateway.sock"), port: free_port()}
  end

  defp options(path, more \\ []),
    do: [handover: [path: path, stop: true] ++ more, timeouts: [drain: 8_000]]

  # Which process answers.
  defp answers(port) do
    response = RawClient.exchange("http://127.0.0.1:#{port}", request(HandoverVm.host()))
    {200, body} = answer(response)
    body |> String.split() |> hd() |> String.to_integer()
  end

  defp status(path), do: with({:ok, status} <- Handover.status(path), do: status)

  defp await_waiting(path, state) do
    eventually(state, 20_000, fn -> with %{next: %{"state" => it}} <- status(path), do: it end)
  end

  defp await_alone(path, pid) do
    eventually({pid, nil, nil}, 10_000, fn ->
      with %{serving: %{"pid" => pid, "handover" => handover}, next: next} <- status(path),
           do: {pid, handover, next}
    end)
  end

  defp await_logged(vm, text) do
    eventually(true, 10_000, fn -> logged?(vm, text) || Cluster.log(vm) end)
  end

  defp logged?(vm, text), do: Enum.any?(Cluster.log(vm), &(&1 =~ text))

  test "no request fails while one VM after another takes over", %{path: path, port: port} do
    first = HandoverVm.start!(port, options(path))
    load = HandoverLoad.start(port, HandoverVm.host())
    HandoverLoad.await(load, 200)

    {last, took} =
      Enum.reduce(1..@handovers, {first, []}, fn _, {old, took} ->
        began = System.monotonic_time(:millisecond)
        new = HandoverVm.start!(port, options(path))
        time = System.monotonic_time(:millisecond) - began
        memory = {HandoverVm.memory(HandoverVm.pid(old)), HandoverVm.memory(HandoverVm.pid(new))}

        await_logged(new, "has the port after")
        [pause] = for line <- Cluster.log(new), [_, it] <- [Regex.run(@pause, line)], do: it
        {:ok, since, 0} = DateTime.from_iso8601(status(path).serving["since"])
        HandoverLoad.await(load, 200)
        HandoverVm.await_end(old)
        {new, [{time, since, memory, String.to_integer(pause)} | took]}
      end)

    result = HandoverLoad.stop(load, Enum.map(took, &elem(&1, 1)))
    times = Enum.map(took, &elem(&1, 0))

    report =
      "#{@handovers} handovers: #{result.requests} requests, #{length(result.failures)} failed, " <>
        "#{result.refused} refused; longest request on a new connection #{result.longest} ms, at a " <>
        "handover #{result.paused} ms, of which none was accepted for at most " <>
        "#{took |> Enum.map(&elem(&1, 3)) |> Enum.max()} ms; from the start of a VM until it has the port " <>
        "#{Enum.min(times)} to #{Enum.max(times)} ms; memory of the two #{inspect(elem(hd(took), 2))} MiB"

    if @handovers > 3, do: IO.puts("\n" <> report)
    assert result.failures == [], report <> "\n" <> inspect(result.failures, limit: 20)
    assert result.paused < 1_000, report
    assert answers(port) == HandoverVm.pid(last)
  end

  test "no descriptor is lost in either VM", %{path: path, port: port} do
    # Connections to endpoints do not count for long.
    options = Keyword.put(options(path), :timeouts, upstream_idle: 50, drain: 8_000)
    manual = Keyword.put(options, :handover, path: path, take: :manual)
    first = HandoverVm.start!(port, options)
    pid = HandoverVm.pid(first)
    before = HandoverVm.sockets(pid)

    for _ <- 1..3 do
      {new, :ok} = HandoverVm.start(port, manual)
      await_waiting(path, "ready")
      answers(port)
      Cluster.kill(new)
      await_alone(path, pid)
    end

    eventually(before, 10_000, fn -> HandoverVm.sockets(pid) end)
    second = HandoverVm.start!(port, options)
    HandoverVm.await_end(first)
    answers(port)
    eventually(before, 10_000, fn -> HandoverVm.sockets(HandoverVm.pid(second)) end)
  end

  describe "the running VM goes on" do
    setup %{path: path, port: port} do
      old = HandoverVm.start!(port, options(path))
      load = HandoverLoad.start(port, HandoverVm.host())
      HandoverLoad.await(load, 50)
      %{old: old, pid: HandoverVm.pid(old), load: load}
    end

    defp same(%{load: load, port: port, pid: pid, path: path}) do
      await_alone(path, pid)
      HandoverLoad.await(load, 100)
      assert HandoverLoad.stop(load).failures == []
      assert answers(port) == pid
    end

    test "if the new one is killed before it is ready", %{path: path, port: port} = context do
      {new, :ok} = HandoverVm.start(port, options(path) ++ [ready: false])
      await_waiting(path, "waiting")
      assert %{"missing" => ["application slow_application is starting"]} = status(path).next
      pid = HandoverVm.pid(new)
      Cluster.kill(new)
      same(context)
      assert logged?(context.old, "process #{pid} has not taken the port over, this one goes on")
    end

    test "if the new one is killed when it is ready", %{path: path, port: port} = context do
      {new, :ok} = HandoverVm.start(port, options(path, take: :manual))
      await_waiting(path, "ready")
      Cluster.kill(new)
      same(context)
      # And the next one gets the port.
      next = HandoverVm.start!(port, options(path))
      assert answers(port) == HandoverVm.pid(next)
    end

    test "if the new one is never ready, which stops and says why", %{path: path} = context do
      options = options(path, ready_timeout: 1_000) ++ [ready: false]
      {new, :ok} = HandoverVm.start(context.port, options)

      eventually(false, 10_000, fn ->
        List.keymember?(
          Cluster.call(new, Application, :started_applications, []),
          :ex_service_mesh_router,
          0
        )
      end)

      why =
        "this system was not ready after 1000 ms (`handover: [ready_timeout: ...]`): application slow_application is starting"

      assert logged?(new, why)
      same(context)
      assert logged?(context.old, why)
    end

    test "if the new one is stopped before it is ready", %{path: path, port: port} = context do
      {new, :ok} = HandoverVm.start(port, options(path) ++ [ready: false])
      await_waiting(path, "waiting")
      :ok = Cluster.call(new, Application, :stop, [:ex_service_mesh_router])
      same(context)
    end

    test "and of two new ones at once, one wins", %{path: path, port: port} = context do
      {first, :ok} = HandoverVm.start(port, options(path, take: :manual))
      await_waiting(path, "ready")
      {_second, {:error, why}} = HandoverVm.start(port, options(path))
      assert why =~ "process #{HandoverVm.pid(first)} is taking it over already"
      assert {:ok, _} = Handover.take(path)
      assert answers(port) == HandoverVm.pid(first)
      HandoverVm.await_end(context.old)
      assert HandoverLoad.stop(context.load).failures == []
    end
  end

  describe "the new VM has the port" do
    test "if the running one is killed before it is ready", %{path: path, port: port} do
      old = HandoverVm.start!(port, options(path))
      pid = HandoverVm.pid(old)
      {new, :ok} = HandoverVm.start(port, options(path, take: :manual))
      await_waiting(path, "ready")
      Cluster.kill(old)
      # Its sockets are closed. The kernel accepts for the new one meanwhile.
      eventually(false, fn -> File.dir?("/proc/#{pid}") end)
      client = RawClient.connect("http://127.0.0.1:#{port}")
      RawClient.send(client, request(HandoverVm.host()))
      # Without a word to take over.
      await_logged(new, "has gone; takes over once")
      assert {200, _} = client |> RawClient.read_to_end() |> answer()
      assert answers(port) == HandoverVm.pid(new)
      HandoverVm.await_port(path, HandoverVm.pid(new))
    end

    test "if the running one is killed, and the new one never becomes ready", context do
      %{path: path, port: port} = context
      old = HandoverVm.start!(port, options(path))
      {new, :ok} = HandoverVm.start(port, options(path, ready_timeout: 1_000) ++ [ready: false])
      await_waiting(path, "waiting")
      Cluster.kill(old)
      await_logged(new, "this system is not ready: application slow_application is starting")
      assert answers(port) == HandoverVm.pid(new)
    end

    test "if the running one hangs, which drains when it goes on", %{path: path, port: port} do
      old = HandoverVm.start!(port, options(path))
      pid = HandoverVm.pid(old)
      {new, :ok} = HandoverVm.start(port, options(path, take: :manual))
      await_waiting(path, "ready")
      {_, 0} = System.cmd("kill", ["-STOP", "#{pid}"])
      assert {:ok, _} = Handover.take(path)
      assert answers(port) == HandoverVm.pid(new)
      {_, 0} = System.cmd("kill", ["-CONT", "#{pid}"])
      HandoverVm.await_end(old)
      assert answers(port) == HandoverVm.pid(new)
    end

    test "if a process of the handover is killed in either VM", %{path: path, port: port} do
      old = HandoverVm.start!(port, options(path))
      {new, :ok} = HandoverVm.start(port, options(path, take: :manual))
      await_waiting(path, "ready")

      for {vm, process} <- [{old, Offer}, {new, Offer}, {new, Successor}] do
        name = Module.concat(ExServiceMeshRouter, process)
        pid = Cluster.call(vm, Process, :whereis, [name])
        true = Cluster.call(vm, Process, :exit, [pid, :kill])

        eventually(true, 5_000, fn ->
          Cluster.call(vm, Process, :whereis, [name]) not in [nil, pid]
        end)

        await_waiting(path, "ready")

        eventually("handing over to process #{HandoverVm.pid(new)}", 5_000, fn ->
          status(path).serving["handover"]
        end)

        assert answers(port) == HandoverVm.pid(old)
      end

      eventually(true, 10_000, fn -> match?({:ok, _}, Handover.take(path)) end)
      assert answers(port) == HandoverVm.pid(new)
      HandoverVm.await_end(old)
    end
  end

  test "a VM that starts after a killed one listens as usual", %{path: path, port: port} do
    old = HandoverVm.start!(port, options(path))
    Cluster.kill(old)
    new = HandoverVm.start!(port, options(path))
    assert logged?(new, "no gateway answers on #{path}, which one left behind")
    assert answers(port) == HandoverVm.pid(new)
  end

  test "a VM that starts while another one stops listens as usual", %{path: path, port: port} do
    old = HandoverVm.start!(port, options(path))
    # Keeps it draining.
    client = RawClient.connect("http://127.0.0.1:#{port}")
    RawClient.send(client, "GET /events HTTP/1.1\r\nHost: #{HandoverVm.host()}\r\n\r\n")
    {:ok, _} = :gen_tcp.recv(client, 0, 5_000)
    :ok = Cluster.call(old, :init, :stop, [])
    new = HandoverVm.start!(port, options(path))
    assert answers(port) == HandoverVm.pid(new)
    HandoverVm.await_end(old)
    assert {:ok, _} = Handover.status(path)
    assert status(path).serving["pid"] == HandoverVm.pid(new)
  end
end
