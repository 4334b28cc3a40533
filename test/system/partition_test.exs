defmodule ExServiceMeshRouter.System.PartitionTest do
  # Nodes with a network namespace each, and faults of the network between them. Node 1 has no endpoint, nodes
  # 2 and 3 have replicas of one, and node 2 has another one alone. PARTITION_LONG=1 takes
  # three minutes.
  use ExServiceMeshRouter.GatewayCase

  alias ExServiceMeshRouter.{Cluster, ClusterCheck, Doctor, Network}
  alias ExServiceMeshRouter.ClusterCheck.{Clients, Node}

  @moduletag timeout: :infinity

  @long System.get_env("PARTITION_LONG") == "1"
  @shared {ReplicasWeb.Endpoint, "replicas.local"}
  @alone {SlowWeb.Endpoint, "slow.local", delay: 4_000}

  if reason = Cluster.unavailable() || Network.unavailable() do
    IO.puts("test/system/partition_test.exs is skipped: #{reason}")
    @moduletag skip: reason
  end

  setup_all do
    folder = Path.join(System.tmp_dir!(), "partition#{System.pid()}")
    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)
    network = Network.start(4)
    options = [network: network, folder: folder, gateway: [doctor: true]]
    nodes = %{1 => [], 2 => [@shared, @alone], 3 => [@shared]}

    nodes =
      for {number, endpoints} <- nodes, into: %{} do
        {number, start_node(number, [endpoints: endpoints] ++ options)}
      end

    %{network: network, nodes: nodes, folder: folder, options: options}
  end

  setup %{network: network, nodes: nodes, folder: folder} do
    # Clients have the same ids in each test.
    for file <- File.ls!(folder), do: File.rm!(Path.join(folder, file))
    Network.heal(network)
    Cluster.connect(peers(nodes))
    agree(nodes, 10_000)
    :ok
  end

  defp start_node(number, options) do
    peer = Node.start(number, options)
    {port, _} = Node.place(peer)

    %{
      peer: peer,
      port: port,
      name: to_string(Cluster.name(peer)),
      options: Network.connect_options(options[:network], number)
    }
  end

  defp peers(nodes), do: for({_number, node} <- nodes, do: node.peer)

  # Waits until every node routes as it should.
  defp agree(nodes, within) do
    wanted = [
      {"ReplicasWeb.Endpoint", ["replicas.local"], [nodes[2].name, nodes[3].name]},
      {"SlowWeb.Endpoint", ["slow.local"], [nodes[2].name]}
    ]

    wanted = for _ <- nodes, do: wanted
    eventually(wanted, within, fn -> for {_, node} <- nodes, do: Node.routes(node.peer) end)
  end

  defp load(nodes, entries, count) do
    table = :ets.new(:entries, [:public, :set])
    for n <- entries, do: :ets.insert(table, {n, nodes[n].port, nodes[n].options})
    Clients.start(table, "replicas.local", count, 2, :rand.uniform(1_000_000))
  end

  # `{status, node that served}` of one request to a node's gateway, and the milliseconds.
  defp ask(node, method, host, path \\ "/#{System.unique_integer([:positive])}") do
    options = [:binary, active: false] ++ node.options
    began = Clients.now()
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, node.port, options)

    :ok =
      :gen_tcp.send(
        socket,
        "#{method} #{path} HTTP/1.1\r\nHost: #{host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
      )

    answer = RawClient.read_to_end(socket, "", 30_000)
    [_, status] = Regex.run(~r"^HTTP/1.1 (\d+)", answer)
    served = Regex.run(~r/x-node: (\d)/, answer, capture: :all_but_first)

    {{String.to_integer(status), served && served |> hd() |> String.to_integer()},
     Clients.now() - began}
  end

  defp judge(results, history, folder) do
    verdict = ClusterCheck.verdict(results, history, folder)
    assert verdict.failed == [], ClusterCheck.explain(verdict.failed, history)
    assert verdict.twice == []
    assert verdict.lost == []
  end

  # On a busy machine the time may have passed.
  defp pause(time), do: time |> max(0) |> Process.sleep()

  # After 3 seconds TCP sends again what was lost, and then after 6, when the peer counts as lost.
  for time <- if(@long, do: [2_500, 8_000], else: [2_500]) do
    test "a node that is cut off for #{time} ms", %{
      nodes: nodes,
      network: network,
      folder: folder
    } do
      time = unquote(time)
      clients = load(nodes, [1, 2, 3], 12)
      pause(500)
      slow = Task.async(fn -> ask(nodes[1], "POST", "slow.local") end)
      pause(300)

      began = Clients.now()
      Network.faults(network, cut: 2)
      made = Clients.now()
      pause(2_200)
      disconnect(nodes)

      pause(made + time - Clients.now())
      Network.heal(network)
      healed = Clients.now()
      Cluster.connect(peers(nodes))

      # A connection that was tried during the cut ends after a second, and the next one begins half a second
      # later.
      agree(nodes, 2_000)
      pause(500)
      results = Clients.stop(clients)
      fault = %{kind: :partition, node: 2, began: began, made: made, ended: healed}
      judge(results, [fault], folder)

      late =
        for r <- results,
            r.began > made + 2_000,
            r.began < healed,
            r.method != :web_socket,
            do: r.ended - r.began

      # The node gets no new requests.
      assert Enum.max(late) < 1_000
      assert Enum.max(for r <- results, r.method != :web_socket, do: r.ended - r.began) < 7_000
      slow = Task.await(slow, 30_000)

      if time > 5_000,
        do: assert({{502, nil}, _took} = slow),
        else: assert({{200, 2}, _took} = slow)
    end
  end

  test "5 % of the packets lost", %{nodes: nodes, network: network, folder: folder} do
    clients = load(nodes, [1, 2, 3], 12)
    Network.faults(network, loss: 5)
    pause(if(@long, do: 60_000, else: 2_000))
    Network.heal(network)
    results = Clients.stop(clients)

    judge(results, [], folder)
    assert length(results) > 100
  end

  test "a firewall that blocks the mesh port of a node", %{
    nodes: nodes,
    network: network,
    folder: folder,
    options: options
  } do
    Network.faults(network, mesh_port: 4)
    node = start_node(4, [endpoints: [@shared]] ++ options)
    Cluster.connect(peers(Map.put(nodes, 4, node)))
    entry = nodes[1]
    clients = load(nodes, [1], 8)

    # Some of their requests try it first.
    eventually([{:unreachable, "10.4.0.2:4500"}], 10_000, fn -> states(entry, node.name) end)

    assert [%{problem: problem}] =
             for(
               %{check: :mesh_unreachable} = finding <-
                 Cluster.call(entry.peer, Doctor, :findings, [ExServiceMeshRouter]),
               do: finding
             )

    assert problem =~ "#{node.name} at 10.4.0.2:4500 (10.4.0.2:4500: no answer within 1 second)"
    Network.heal(network)
    eventually([{:serving, "10.4.0.2:4500"}], 5_000, fn -> states(entry, node.name) end)
    judge(Clients.stop(clients), [], folder)
    Cluster.kill(node.peer)
  end

  test "distribution blocked, and nothing else", %{nodes: nodes, network: network} do
    Network.faults(network, distribution: 2)
    disconnect(nodes)
    entry = nodes[1]

    eventually([:last_resort], fn -> for {state, _} <- states(entry, nodes[2].name), do: state end)

    for _ <- 1..50, do: assert(served(entry) == 3)

    {endpoint, _host} = @shared
    Cluster.call(nodes[3].peer, Node, :stop_endpoint, [endpoint])
    eventually(2, fn -> served(entry) end)
    until = Clients.now() + if(@long, do: 55_000, else: 1_000)

    for method <-
          Stream.cycle(~w(GET POST)) |> Stream.take_while(fn _ -> Clients.now() < until end) do
      assert {{200, 2}, _} = ask(entry, method, "replicas.local")
    end

    Cluster.call(nodes[3].peer, Node, :restart_endpoint, [endpoint])
    Network.heal(network)
    Cluster.connect(peers(nodes))
    agree(nodes, 1_000)
  end

  # `{state, address}` of a node, as another one sees it.
  defp states(%{peer: peer}, name) do
    for %{name: "ReplicasWeb.Endpoint", peers: peers} <-
          Cluster.call(peer, ExServiceMeshRouter, :services, []),
        %{node: ^name} = peer <- peers,
        do: {peer.state, peer.address}
  end

  defp served(entry) do
    {{200, served}, _} = ask(entry, "GET", "replicas.local")
    served
  end

  # What the ticks of distribution do later.
  defp disconnect(nodes) do
    for n <- [1, 3] do
      Cluster.disconnect(nodes[n].peer, nodes[2].peer)
      Cluster.disconnect(nodes[2].peer, nodes[n].peer)
    end
  end
end
