defmodule ExServiceMeshRouter.Mesh.Status do
  @moduledoc false
  # Describes the mesh of a gateway for people, see Mesh.status/1. Reads what its processes have stored, so
  # that a busy or restarting one delays nothing.

  alias ExServiceMeshRouter.{Gateway, Registry}
  alias ExServiceMeshRouter.Mesh.Memory
  alias ExServiceMeshRouter.Registry.PeerState

  # Connected nodes that the line names.
  @most_names 3

  @off %{state: :off, node: nil, addresses: [], problem: nil, nodes: [], line: "off"}

  @doc "Returns the status of a gateway."
  def gather(name) do
    if Process.whereis(Module.concat(name, Supervisor)) && Gateway.config(name).mesh,
      do: name |> facts() |> new(),
      else: @off
  catch
    :exit, _ends_meanwhile -> @off
  end

  defp facts(name) do
    used = for %{id: id} <- Registry.peers(name), into: MapSet.new(), do: id
    links = PeerState.links(name)

    %{
      node: node(),
      distributed?: Node.alive?(),
      listener: Memory.listener(name),
      connected: Enum.map(Node.list(), &Atom.to_string/1),
      nodes: for({id, peer} <- Memory.peers(name), do: entry(peer, id in used, links[id]))
    }
  end

  defp entry(%{hello: hello} = peer, used?, link) do
    known =
      cond do
        hello.state == :draining -> :draining
        peer.lost_at != nil -> :last_resort
        used? -> :serving
        true -> :joining
      end

    Map.merge(PeerState.public(peer.node, known, link), %{
      connections: (link && link.connections) || 0,
      endpoints: length(hello.services),
      library: hello.library
    })
  end

  @doc "Makes the status from what gather/1 has read."
  def new(facts) do
    # Those with a problem first.
    nodes = Enum.sort_by(facts.nodes, &{PeerState.used?(&1), &1.node})
    status = %{@off | state: state(facts), node: own(facts), nodes: nodes}

    status =
      case facts.listener do
        {:open, addresses} -> %{status | addresses: addresses}
        {:problem, problem} -> %{status | problem: problem}
        nil -> status
      end

    %{status | line: line(status, facts.connected)}
  end

  defp own(%{distributed?: true, node: node}), do: Atom.to_string(node)
  defp own(_facts), do: nil

  defp state(%{listener: {:open, _addresses}}), do: :on
  defp state(%{listener: {:problem, _problem}}), do: :not_listening
  defp state(%{distributed?: false}), do: :not_distributed
  defp state(_facts), do: :starting

  defp line(%{state: :not_distributed}, _connected),
    do: "waiting for distribution: start the node with a name (`--name`, `--sname`)"

  defp line(%{state: :starting, node: node}, _connected), do: "#{node} is starting"

  defp line(%{state: :not_listening} = status, _connected),
    do: "#{status.node} cannot listen for other nodes: #{status.problem}"

  defp line(status, connected) do
    at = Enum.join(status.addresses, " and ")
    "#{status.node} listens on #{at}, #{others(status.nodes, connected)}"
  end

  defp others([], []),
    do: "no other node: connect them, e.g. with libcluster or dns_cluster"

  defp others([], connected) do
    {names, more} = connected |> Enum.sort() |> Enum.split(@most_names)
    names = Enum.join(names, ", ") <> if(more == [], do: "", else: " and #{length(more)} more")
    "no gateway on the connected nodes (#{names}): set `mesh: true` there"
  end

  defp others(nodes, _connected) do
    counts = nodes |> Enum.reject(&PeerState.used?/1) |> Enum.frequencies_by(& &1.state)

    avoided =
      Enum.map_join(Enum.sort(counts), ", ", fn {state, n} -> "#{n} #{PeerState.words(state)}" end)

    count(length(nodes)) <> if(avoided == "", do: "", else: " (#{avoided})")
  end

  defp count(1), do: "1 other node"
  defp count(n), do: "#{n} other nodes"
end
