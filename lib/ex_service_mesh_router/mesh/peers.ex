defmodule ExServiceMeshRouter.Mesh.Peers do
  @moduledoc false
  # Keeps what the gateways of other nodes have said, pins their keys in the data plane, and gives their
  # endpoints to the registry.
  #
  # A peer is keyed by its incarnation, never by its node: a node that comes back under its name is
  # another peer. It is used once it has pinned our key, so that the first connection is accepted.
  #
  # The end of a member's process, or of the connection to its node, is not the end of its gateway: its
  # endpoints stay as a last resort for a minute. Only a peer that said that it stops, or whose node has
  # a newer incarnation, is removed at once.
  #
  # The Store has the peers, so that a restarted process goes on with them. Nothing here depends on
  # clocks of other nodes.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Gateway, Native, Registry}
  alias ExServiceMeshRouter.Gateway.Reporter
  alias ExServiceMeshRouter.Mesh.{Addresses, Member, Memory, Scope, Warnings}

  @last_resort 60_000
  @monitor_again 10
  @most_peers 512
  # Incarnations that a newer one of their node has replaced.
  @most_replaced 64

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: Memory.peers_process(config.name))

  @impl true
  def init(config) do
    state = %{
      name: config.name,
      gateway: Gateway.ref(config.name),
      # of the monitor of the group, and of the scope's process
      group: nil,
      scope: nil,
      peers: %{},
      replaced: [],
      # what the registry has, as `%{incarnation => peer}`
      used: Map.new(Registry.peers(config.name), &{&1.id, &1}),
      flushing?: false,
      # members to greet and to acknowledge after the next flush
      greet: [],
      acknowledge: [],
      warned: Warnings.new()
    }

    {:ok, state, {:continue, :begin}}
  end

  @impl true
  def handle_continue(:begin, state) do
    peers = Memory.peers(state.name)
    state = Enum.reduce(peers, state, fn {_id, peer}, state -> put(state, restored(peer)) end)
    state = state |> watch_group() |> flush_later()
    # What was said meanwhile is lost.
    Member.ask(state.name)
    {:noreply, state}
  end

  defp restored(peer) do
    if peer.lost_at, do: expire_later(peer), else: %{peer | monitor: Process.monitor(peer.pid)}
  end

  @impl true
  def handle_info({:hello, hello}, state), do: {:noreply, hear(state, hello)}

  def handle_info({:DOWN, scope, :process, _name, _reason}, %{scope: scope} = state) do
    Process.send_after(self(), :watch_group, @monitor_again)
    {:noreply, %{state | scope: nil, group: nil}}
  end

  def handle_info({:DOWN, monitor, :process, _pid, reason}, state) do
    case Enum.find(state.peers, fn {_id, peer} -> peer.monitor == monitor end) do
      {_id, peer} -> {:noreply, lost(state, peer, reason)}
      nil -> {:noreply, state}
    end
  end

  def handle_info(:watch_group, state), do: {:noreply, watch_group(state)}

  def handle_info({group, :join, name, members}, %{group: group} = state),
    do: {:noreply, met(state, name, members)}

  def handle_info({:expire, id, lost_at}, state) do
    case state.peers do
      %{^id => %{lost_at: ^lost_at}} -> {:noreply, remove(state, id)}
      _ -> {:noreply, state}
    end
  end

  def handle_info({:looked_up, id, addresses}, state) do
    case state.peers do
      %{^id => peer} -> {:noreply, put(state, looked_up(peer, addresses))}
      _ -> {:noreply, state}
    end
  end

  def handle_info(:flush, state), do: {:noreply, flush(state)}
  def handle_info(_other, state), do: {:noreply, state}

  defp watch_group(state) do
    scope = Process.monitor(Scope.name(state.name))
    state = %{state | scope: scope}

    case monitor_scope(state) do
      {group, groups} ->
        Enum.reduce(groups, %{state | group: group}, fn {name, members}, state ->
          met(state, name, members)
        end)

      nil ->
        state
    end
  end

  defp monitor_scope(state) do
    :pg.monitor_scope(Scope.name(state.name))
  catch
    # The monitor of its process reports it.
    :exit, _reason -> nil
  end

  defp met(state, name, members) do
    others = Enum.reject(members, &(node(&1) == node()))

    if name == Scope.group() do
      Member.greet(state.name, others)
      state
    else
      Enum.reduce(others, state, &other_version(&2, name, node(&1)))
    end
  end

  defp other_version(state, {:mesh, version}, node) do
    text =
      "#{node} speaks version #{inspect(version)} of the mesh and this node version " <>
        "#{Scope.version()}. They ignore each other until both have the same version of " <>
        "ex_service_mesh_router"

    warn(state, {:version, node}, text)
  end

  defp other_version(state, _group, _node), do: state

  # Hellos

  defp hear(state, %{incarnation: id} = hello) do
    known = state.peers[id]

    cond do
      id == Memory.incarnation(state.name) or id in state.replaced ->
        state

      known && known.node != hello.node ->
        warn(
          state,
          {:lie, hello.node},
          "#{hello.node} says that it is #{known.node}; it is ignored"
        )

      known && hello.seq <= known.seq ->
        state

      known == nil and others(state, hello) >= @most_peers ->
        text = "#{hello.node} is ignored: there are #{@most_peers} nodes in the mesh already"
        warn(state, :peers, text)

      true ->
        state |> replace_older(hello) |> accept(known, hello)
    end
  end

  # Without an older peer of the node, which a new one replaces.
  defp others(state, hello),
    do: Enum.count(state.peers, fn {_id, peer} -> peer.node != hello.node end)

  defp replace_older(state, hello) do
    older =
      for {id, peer} <- state.peers, peer.node == hello.node, id != hello.incarnation, do: id

    state = Enum.reduce(older, state, &remove(&2, &1))
    %{state | replaced: Enum.take(older ++ state.replaced, @most_replaced)}
  end

  defp accept(state, known, hello) do
    peer = %{
      id: hello.incarnation,
      node: hello.node,
      seq: hello.seq,
      hello: hello,
      pid: hello.member,
      monitor: monitor(known, hello.member),
      lost_at: nil,
      addresses: Addresses.candidates(hello),
      known: if(known, do: known.known, else: %{}),
      looking_up?: known != nil and known.looking_up?
    }

    greet? = known == nil or hello.answer
    acknowledge? = hello.state == :draining

    %{
      state
      | greet: if(greet?, do: [peer.pid | state.greet], else: state.greet),
        acknowledge: if(acknowledge?, do: [peer.pid | state.acknowledge], else: state.acknowledge)
    }
    |> put(look_up(peer))
  end

  defp monitor(%{pid: pid, lost_at: nil, monitor: monitor}, pid), do: monitor

  defp monitor(known, pid) do
    if known && known.monitor, do: Process.demonitor(known.monitor, [:flush])
    Process.monitor(pid)
  end

  # In another process, because the name server may be slow. Names without an address are looked up again
  # with the next hello.
  defp look_up(%{looking_up?: true} = peer), do: peer

  defp look_up(%{id: id} = peer) do
    case Addresses.names(peer.addresses) -- Map.keys(peer.known) do
      [] ->
        peer

      names ->
        peers = self()
        spawn_link(fn -> send(peers, {:looked_up, id, Addresses.look_up(names)}) end)
        %{peer | looking_up?: true}
    end
  end

  defp looked_up(peer, addresses),
    do: %{peer | known: Map.merge(peer.known, addresses), looking_up?: false}

  defp lost(state, peer, reason) do
    if peer.hello.state == :draining and reason != :noconnection do
      remove(state, peer.id)
    else
      if used?(state, peer), do: log_lost(peer, reason)
      lost_at = System.monotonic_time(:millisecond)
      put(state, expire_later(%{peer | lost_at: lost_at, monitor: nil}))
    end
  end

  defp log_lost(peer, :noconnection) do
    Logger.warning(
      "mesh: the connection to #{peer.node} is lost; its endpoints are a last resort for " <>
        "#{div(@last_resort, 1_000)} s"
    )
  end

  # The gateway on that node has crashed or says hello again in a moment.
  defp log_lost(peer, _reason),
    do:
      Logger.info(
        "mesh: the gateway on #{peer.node} is restarting; it is a last resort meanwhile"
      )

  defp expire_later(peer) do
    time = peer.lost_at + @last_resort
    Process.send_after(self(), {:expire, peer.id, peer.lost_at}, time, abs: true)
    peer
  end

  defp put(state, peer) do
    Memory.put_peer(state.name, %{peer | monitor: nil, looking_up?: false})
    flush_later(%{state | peers: Map.put(state.peers, peer.id, peer)})
  end

  defp remove(state, id) do
    {peer, peers} = Map.pop(state.peers, id)
    if peer.monitor, do: Process.demonitor(peer.monitor, [:flush])
    Memory.delete_peer(state.name, id)
    flush_later(%{state | peers: peers})
  end

  # Behind the messages that wait, so that many changes become one table.
  defp flush_later(%{flushing?: true} = state), do: state

  defp flush_later(state) do
    send(self(), :flush)
    %{state | flushing?: true}
  end

  # A key is pinned before a route needs it, and for longer.
  defp flush(state) do
    state = %{state | flushing?: false}
    pins = Map.new(state.peers, fn {id, peer} -> {id, pin(peer)} end)
    both = Map.merge(Memory.pins(state.name), pins)
    used = for {id, peer} <- state.peers, used?(state, peer), into: %{}, do: {id, offer(peer)}

    with :ok <- put_pins(state, both),
         :ok <- route(state, used),
         :ok <- put_pins(state, pins) do
      flushed(%{state | used: used})
    else
      # The next hello of any peer comes here again.
      {:error, text} -> warn(state, text, "the data plane refuses a change of the nodes: #{text}")
    end
  end

  defp flushed(state) do
    if state.greet != [], do: Member.greet(state.name, Enum.uniq(state.greet))
    if state.acknowledge != [], do: Member.acknowledge(state.name, Enum.uniq(state.acknowledge))
    %{state | greet: [], acknowledge: []}
  end

  defp pin(peer) do
    addresses = Addresses.to_native(peer.addresses, peer.known)
    %{id: peer.id, name: peer.node, key: peer.hello.key, addresses: addresses}
  end

  # The Store knows of each key that a route may need, whenever this process ends.
  defp put_pins(state, pins) do
    with true <- pins != Memory.pins(state.name),
         :ok <- Native.put_peers(state.gateway, Map.values(pins)) do
      Memory.put_pins(state.name, pins)
    else
      false -> :ok
      {:error, text} -> {:error, text}
    end
  end

  # A peer uses us on the same condition.
  defp used?(state, peer), do: Memory.incarnation(state.name) in peer.hello.seen

  defp offer(peer) do
    services =
      for service <- peer.hello.services do
        since = DateTime.from_unix!(service.since, :millisecond)
        %{name: service.endpoint, hosts: service.hosts, since: since}
      end

    %{id: peer.id, node: peer.node, state: state(peer), services: services}
  end

  defp state(%{hello: %{state: :draining}}), do: :draining
  defp state(%{lost_at: lost_at}) when lost_at != nil, do: :last_resort
  defp state(_peer), do: :serving

  defp route(%{used: used}, used), do: :ok

  defp route(state, used) do
    with :ok <- Registry.put_peers(state.name, Map.values(used)) do
      log(state.used, used)
      Reporter.routes(state.name, events(state.used, used))
    end
  end

  defp log(before, now) do
    for {id, peer} <- now, not is_map_key(before, id) do
      Logger.info("mesh: #{peer.node} has joined with #{names(peer)}")
    end

    for {id, %{state: :draining, node: node}} <- now,
        not match?(%{^id => %{state: :draining}}, before),
        do: Logger.info("mesh: #{node} is stopping; it gets no more requests")

    for {id, %{state: :serving, node: node}} <- now,
        match?(%{^id => %{state: :last_resort}}, before),
        do: Logger.info("mesh: #{node} is connected again")

    for {id, peer} <- before, not is_map_key(now, id) do
      Logger.info("mesh: #{peer.node} has left")
    end
  end

  defp names(%{services: []}), do: "no endpoints"
  defp names(%{services: services}), do: Enum.map_join(services, ", ", & &1.name)

  defp events(before, now) do
    for({id, peer} <- now, not is_map_key(before, id), do: {[:peer, :join], %{node: peer.node}}) ++
      for {id, peer} <- before, not is_map_key(now, id), do: {[:peer, :leave], %{node: peer.node}}
  end

  defp warn(state, key, text), do: %{state | warned: Warnings.warn(state.warned, key, text)}
end
