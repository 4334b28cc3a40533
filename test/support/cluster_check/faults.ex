defmodule ExServiceMeshRouter.ClusterCheck.Faults do
  @moduledoc "Makes faults in a cluster, one node at a time, and remembers when and where."

  alias ExServiceMeshRouter.{Cluster, Network}
  alias ExServiceMeshRouter.ClusterCheck.{Clients, Node}

  # `made` is when the latest fault had been made.
  defstruct [:entries, :options, :made, nodes: %{}, history: []]

  @doc "The kinds of faults, with or without those that need a `Network`."
  def kinds(network?) do
    ~w(kill stop term disconnect endpoint)a ++
      if(network?, do: ~w(partition mesh_port distribution loss)a, else: [])
  end

  @doc "Starts and connects `count` nodes; returns when each routes to all."
  def start(count, options) do
    entries = :ets.new(:entries, [:public, :set])
    cluster = %__MODULE__{entries: entries, options: options}
    cluster = Enum.reduce(1..count, cluster, &start_node(&2, &1))
    _ = settle(cluster)
    open(cluster)
    cluster
  end

  defp start_node(cluster, number) do
    peer = Node.start(number, cluster.options)
    {port, pid} = Node.place(peer)
    others = Map.values(cluster.nodes)
    Cluster.connect([peer | Enum.map(others, & &1.peer)])
    put_in(cluster.nodes[number], %{peer: peer, port: port, pid: pid, name: Cluster.name(peer)})
  end

  # Clients may come.
  defp open(cluster) do
    network = cluster.options[:network]

    for {number, %{port: port}} <- cluster.nodes do
      options = if network, do: Network.connect_options(network, number), else: []
      :ets.insert(cluster.entries, {number, port, options})
    end
  end

  @doc "Waits until all nodes have the same table, with all nodes in it; returns the milliseconds."
  def settle(cluster), do: settle(cluster, Clients.now())

  defp settle(cluster, began) do
    names = cluster.nodes |> Map.values() |> Enum.map(&to_string(&1.name)) |> Enum.sort()
    tables = for {_number, node} <- cluster.nodes, do: Node.routes(node.peer)

    whole? =
      Enum.all?(tables, fn table -> table != [] and Enum.all?(table, &(elem(&1, 2) == names)) end)

    cond do
      whole? and length(Enum.uniq(tables)) == 1 -> Clients.now() - began
      Clients.now() - began > 30_000 -> raise "the nodes do not agree: #{inspect(tables)}"
      true -> Process.sleep(5) && settle(cluster, began)
    end
  end

  @doc "Makes faults for `time` milliseconds."
  def run(cluster, kinds, endpoint, time, seed) do
    :rand.seed(:exsss, {seed, 0, 0})
    run(cluster, kinds, endpoint, Clients.now() + time)
  end

  defp run(cluster, kinds, endpoint, deadline) do
    pause(300 + :rand.uniform(700))

    if Clients.now() > deadline do
      cluster
    else
      number = Enum.random(Map.keys(cluster.nodes))
      kind = Enum.random(kinds)
      began = Clients.now()
      cluster = make(kind, cluster, number, endpoint)

      fault = %{
        kind: kind,
        node: number,
        began: began,
        made: cluster.made,
        ended: Clients.now()
      }

      run(%{cluster | history: [fault | cluster.history]}, kinds, endpoint, deadline)
    end
  end

  defp make(:kill, cluster, number, _endpoint) do
    node = cluster.nodes[number]
    # Its clients would only wait for a gateway that is gone.
    :ets.delete(cluster.entries, number)
    Cluster.kill(node.peer)
    again(made(cluster), number)
  end

  defp make(:term, cluster, number, _endpoint) do
    %{peer: peer, pid: pid} = cluster.nodes[number]
    monitor = Process.monitor(peer)
    {_, 0} = System.cmd("kill", ["-TERM", pid])
    cluster = made(cluster)
    # A load balancer learns of it a moment later.
    pause(50)
    :ets.delete(cluster.entries, number)

    receive do
      {:DOWN, ^monitor, :process, _, _} -> :ok
    after
      60_000 -> raise "node #{number} does not stop"
    end

    again(cluster, number)
  end

  defp make(:stop, cluster, number, _endpoint) do
    %{pid: pid} = cluster.nodes[number]
    :ets.delete(cluster.entries, number)
    {_, 0} = System.cmd("kill", ["-STOP", pid])
    cluster = made(cluster)
    pause(500 + :rand.uniform(7_000))
    {_, 0} = System.cmd("kill", ["-CONT", pid])
    # Suspicion ends with the next answer.
    pause(1_500)
    open(cluster)
    cluster
  end

  defp make(:disconnect, cluster, number, _endpoint) do
    disconnect(cluster, number)
    cluster = made(cluster)
    pause(:rand.uniform(1_000))
    connect(cluster)
    cluster
  end

  # No packet of the node passes, as if its cable were cut. Distribution may notice it or not.
  defp make(:partition, cluster, number, _endpoint) do
    cluster =
      in_network(cluster, [cut: number], 500 + :rand.uniform(7_000), fn ->
        if :rand.uniform(2) == 1, do: disconnect(cluster, number)
      end)

    # Suspicion ends with the next answer.
    pause(1_500)
    cluster
  end

  defp make(:mesh_port, cluster, number, _endpoint) do
    cluster = in_network(cluster, [mesh_port: number], 500 + :rand.uniform(7_000))
    pause(1_500)
    cluster
  end

  defp make(:distribution, cluster, number, _endpoint) do
    in_network(cluster, [distribution: number], :rand.uniform(3_000), fn ->
      disconnect(cluster, number)
    end)
  end

  defp make(:loss, cluster, _number, _endpoint),
    do: in_network(cluster, [loss: 5], 1_000 + :rand.uniform(3_000))

  defp make(:endpoint, cluster, number, endpoint) do
    %{peer: peer} = cluster.nodes[number]
    Cluster.call(peer, Node, :stop_endpoint, [endpoint])
    cluster = made(cluster)
    pause(:rand.uniform(1_000))
    Cluster.call(peer, Node, :restart_endpoint, [endpoint])
    cluster
  end

  defp in_network(cluster, faults, time, then \\ fn -> :ok end) do
    Network.faults(cluster.options[:network], faults)
    cluster = made(cluster)
    then.()
    pause(time)
    Network.heal(cluster.options[:network])
    connect(cluster)
    cluster
  end

  defp disconnect(cluster, number) do
    for {n, other} <- cluster.nodes, n != number do
      Cluster.disconnect(cluster.nodes[number].peer, other.peer)
      # Neither learns of it from the other.
      Cluster.disconnect(other.peer, cluster.nodes[number].peer)
    end
  end

  defp connect(cluster), do: Cluster.connect(for {_number, node} <- cluster.nodes, do: node.peer)

  defp made(cluster), do: %{cluster | made: Clients.now()}

  defp again(cluster, number) do
    pause(:rand.uniform(500))
    cluster = start_node(%{cluster | nodes: Map.delete(cluster.nodes, number)}, number)
    _ = settle(cluster)
    open(cluster)
    cluster
  end

  @doc "Ends all nodes."
  def stop(cluster) do
    for {_number, node} <- cluster.nodes do
      monitor = Process.monitor(node.peer)
      System.cmd("kill", ["-KILL", node.pid], stderr_to_stdout: true)
      receive do: ({:DOWN, ^monitor, :process, _, _} -> :ok)
    end
  end

  defp pause(time) do
    receive do
    after
      time -> :ok
    end
  end
end
