defmodule ExServiceMeshRouter.Network do
  @moduledoc """
  A network for nodes under test: each node has a network namespace of its own, and a router between them
  drops what a test says.

  The namespaces have no names. They end with their processes, also if the test is killed, and the network of
  the host stays as it is. Node `n` is `10.n.0.2`; its distribution and its mesh port are fixed. It needs no
  epmd, which would survive the test.
  """

  @distribution 4370
  @mesh 4500

  # Processes of the operating system that keep the namespaces open.
  defstruct [:router, nodes: %{}]

  @doc "Says why there can be no such network, or `nil`."
  def unavailable do
    missing = Enum.reject(~w(ip nft nsenter unshare), &System.find_executable/1)

    cond do
      missing != [] -> "not found in the path: #{Enum.join(missing, ", ")}"
      problem = problem() -> "no network namespace with nft: #{problem}"
      true -> nil
    end
  end

  # Drops packets and connects two namespaces, as the tests do.
  defp problem do
    script =
      "ip link set lo up && ip link add left type veth peer name right && nft '#{table()}' && nft '#{rules(loss: 5)}'"

    case System.cmd("unshare", ["--net", "sh", "-c", script], stderr_to_stdout: true) do
      {_, 0} -> nil
      {text, _} -> text |> String.split("\n") |> hd()
    end
  end

  @doc "Starts a network of `count` nodes. It ends with the calling process."
  def start(count) do
    router = namespace()
    network = %__MODULE__{router: router, nodes: Map.new(1..count, &{&1, namespace()})}
    run(router, "echo 1 > /proc/sys/net/ipv4/ip_forward && nft '#{table()}'")

    for {n, pid} <- network.nodes do
      run(router, """
      ip link add node#{n} type veth peer name eth0 netns #{pid} &&
      ip address add 10.#{n}.0.1/24 dev node#{n} && ip link set node#{n} up
      """)

      run(pid, """
      ip link set lo up && ip address add 10.#{n}.0.2/24 dev eth0 && ip link set eth0 up &&
      ip route add default via 10.#{n}.0.1
      """)
    end

    network
  end

  defp namespace do
    arguments = ["--net", "sh", "-c", "echo $$; read end"]
    unshare = {:spawn_executable, System.find_executable("unshare")}
    port = Port.open(unshare, [:binary, args: arguments, line: 20])

    receive do
      {^port, {:data, {:eol, pid}}} -> pid
    after
      10_000 -> raise "unshare does not answer"
    end
  end

  defp run(pid, script) do
    case System.cmd("nsenter", ["-t", pid, "-n", "sh", "-c", script], stderr_to_stdout: true) do
      {_, 0} -> :ok
      {text, _} -> raise "#{script}: #{text}"
    end
  end

  @doc "The options of `Cluster.start_node/2` for a node in the network."
  def node_options(network, n) do
    erl = System.find_executable("erl")

    [
      host: ~c"10.#{n}.0.2",
      exec:
        {"nsenter" |> System.find_executable() |> to_charlist(),
         Enum.map(["-t", network.nodes[n], "-n", erl], &to_charlist/1)},
      arguments:
        Enum.map(["-start_epmd", "false", "-erl_epmd_port", "#{@distribution}"], &to_charlist/1)
    ]
  end

  @doc "The option `mesh` of a gateway in the network."
  def mesh(n), do: [ip: {10, n, 0, 2}, port: @mesh]

  @doc "The options with which `:gen_tcp` connects to 127.0.0.1 of the node."
  def connect_options(network, n), do: [netns: ~c"/proc/#{network.nodes[n]}/ns/net"]

  @doc """
  Replaces the faults of the network: `{:cut, n}` drops all packets of a node, `{:mesh_port, n}` those to its
  mesh port, `{:distribution, n}` those of its distribution, `{:loss, percent}` some of all.
  """
  def faults(network, faults), do: run(network.router, "nft '#{rules(faults)}'")

  @doc "Ends all faults of the network."
  def heal(network), do: faults(network, [])

  defp table, do: "table ip faults { chain forward { type filter hook forward priority 0; }; }"

  defp rules(faults) do
    dropped =
      for fault <- faults,
          packets <- packets(fault),
          do: "; add rule ip faults forward #{packets} drop"

    Enum.join(["flush chain ip faults forward" | dropped])
  end

  defp packets({:cut, n}), do: ["ip saddr 10.#{n}.0.2", "ip daddr 10.#{n}.0.2"]
  defp packets({:mesh_port, n}), do: ["ip daddr 10.#{n}.0.2 tcp dport #{@mesh}"]
  defp packets({:loss, percent}), do: ["numgen random mod 100 < #{percent}"]

  # Either node may have opened the connection.
  defp packets({:distribution, n}) do
    for own <- ~w(saddr daddr),
        port <- ~w(sport dport),
        do: "ip #{own} 10.#{n}.0.2 tcp #{port} #{@distribution}"
  end
end
