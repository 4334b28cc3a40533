# How soon the nodes of a cluster follow each other, over real sockets, on this machine:
#
#     MIX_ENV=test mix run --no-start bench/mesh.exs [ROUNDS]
#
#     usable    from the start of an endpoint on one node to the first 200 at the gateway of another, over
#               ROUNDS (100) restarts
#     killed    from SIGKILL of a node to the last request that another node sent to it
#     stopped   the same for SIGSTOP, which nothing but missing answers tells
#
# For the last two, a client asks without a pause by POST, which a gateway cannot send to another node once
# it has been sent: a request that fails, or waits, was sent to the lost node.

ExUnit.start(autorun: false)

defmodule Bench.Mesh do
  use ExUnit.Case

  alias ExServiceMeshRouter.ClusterCheck.{Faults, Node}
  alias ExServiceMeshRouter.Cluster

  @endpoint MeshBenchWeb.Endpoint
  @host "mesh-bench.local"

  @tag timeout: :infinity
  test "figures" do
    rounds = System.argv() |> List.first("100") |> String.to_integer()
    folder = Path.join(System.tmp_dir!(), "mesh-bench-#{System.pid()}")
    File.mkdir_p!(folder)

    try do
      usable(rounds, folder)
      for signal <- ["KILL", "STOP"], do: last_request(signal, folder)
    after
      File.rm_rf!(folder)
    end
  end

  defp usable(rounds, folder) do
    cluster = Faults.start(2, endpoints: [{@endpoint, @host}], folder: folder)
    %{1 => a, 2 => b} = cluster.nodes
    # Only node 2 has it.
    Cluster.call(a.peer, Node, :stop_endpoint, [@endpoint])

    times =
      for _ <- 1..rounds do
        Cluster.call(b.peer, Node, :stop_endpoint, [@endpoint])
        until(fn -> post(a.port, "") == 503 end)
        began = now()
        Cluster.call(b.peer, Node, :restart_endpoint, [@endpoint])
        until(fn -> post(a.port, "") == 200 end)
        now() - began
      end

    Faults.stop(cluster)
    times = Enum.sort(times)
    at = fn share -> times |> Enum.at(round((rounds - 1) * share)) |> ms() end
    IO.puts("usable   p50 #{at.(0.5)}, p99 #{at.(0.99)}, most #{at.(1.0)} of #{rounds}")
  end

  defp last_request(signal, folder) do
    lasts =
      for _ <- 1..5 do
        cluster = Faults.start(3, endpoints: [{@endpoint, @host}], folder: folder)
        %{1 => a, 2 => b} = cluster.nodes
        Cluster.call(a.peer, Node, :stop_endpoint, [@endpoint])
        clients = for _ <- 1..8, do: Task.async(fn -> ask(a.port, now() + 10_000_000, []) end)
        receive do: (_ -> :ok), after: (1_000 -> :ok)
        {_, 0} = System.cmd("kill", ["-" <> signal, b.pid])
        at = now()
        asked = clients |> Task.await_many(60_000) |> List.flatten()
        Faults.stop(cluster)
        lost = for {began, took, status} <- asked, status != 200 or took > 400_000, do: began - at
        {Enum.max(lost, fn -> 0 end), Enum.count(asked)}
      end

    {times, counts} = Enum.unzip(lasts)
    name = if signal == "KILL", do: "killed", else: "stopped"
    times = times |> Enum.map(&max(&1, 0)) |> Enum.sort()

    IO.puts(
      "#{name}  last request after #{Enum.map_join(times, ", ", &ms/1)} (#{Enum.sum(counts)} requests)"
    )
  end

  defp ask(port, deadline, done) do
    began = now()

    if began > deadline do
      done
    else
      status = post(port, "x")
      ask(port, deadline, [{began, now() - began, status} | done])
    end
  end

  defp post(port, body) do
    request =
      "POST /0-0 HTTP/1.1\r\nHost: #{@host}\r\nConnection: close\r\nContent-Length: #{byte_size(body)}\r\n\r\n#{body}"

    with {:ok, socket} <- :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false]),
         :ok <- :gen_tcp.send(socket, request),
         {:ok, "HTTP/1.1 " <> <<status::binary-size(3), _::binary>>} <-
           :gen_tcp.recv(socket, 0, 30_000) do
      :gen_tcp.close(socket)
      String.to_integer(status)
    else
      error -> error
    end
  end

  defp until(holds) do
    if not holds.() do
      receive do
      after
        1 -> until(holds)
      end
    end
  end

  defp now, do: System.monotonic_time(:microsecond)
  defp ms(microseconds), do: "#{Float.round(microseconds / 1_000, 1)} ms"
end

ExUnit.run()
