defmodule ExServiceMeshRouter.Mesh.Member do
  @moduledoc false
  # Speaks for this node's gateway: opens the mesh port, joins the group, says hello to the other members,
  # and hands their hellos to Peers. A hello goes to all members after a change and every ten seconds, and
  # to one member when Peers has found it or pinned its key.
  #
  # It must hold no monitor on the group: on OTP 25 a process that joins a group and monitors it crashes
  # the scope when it ends (otp#7625).
  #
  # Nothing is lost when it crashes: the data plane has the key, and the next hello has the whole state.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Gateway, Native, Registry}
  alias ExServiceMeshRouter.Endpoint.Candidates
  alias ExServiceMeshRouter.Mesh.{Addresses, Checks, Hello, Memory, Scope, Warnings}

  @repair 10_000
  @join_again 10
  # The time between two hellos to all about changes: many endpoints start together.
  @pause 20
  # How long the other nodes may take to acknowledge the last hello.
  @acknowledge 500
  # Hellos of one member within a second, and members within a second.
  @most_hellos 100
  @most_members 1_024
  # A longer mailbox is a flood: hellos are dropped, and the next ones repair that.
  @longest_mailbox 5_000

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: Registry.announcer(config.name))

  @doc "Says hello to these members. With `answer: true` they are to do the same."
  def greet(name, pids, options \\ []), do: tell(name, {:greet, pids, options[:answer] == true})

  @doc "Says hello to all members, who are to do the same."
  def ask(name), do: tell(name, :ask)

  @doc "Acknowledges the last hello of these members."
  def acknowledge(name, pids), do: tell(name, {:acknowledge, pids})

  @doc "See Mesh.leave/1."
  def leave(name) do
    GenServer.call(Registry.announcer(name), :leave, 2 * @acknowledge)
  catch
    :exit, _reason -> :ok
  end

  defp tell(name, message) do
    member = Process.whereis(Registry.announcer(name))
    if member, do: send(member, message)
    :ok
  end

  @impl true
  def init(config) do
    Process.flag(:trap_exit, true)

    state = %{
      name: config.name,
      mesh: config.mesh,
      # what the data plane told of its key and its port
      open: nil,
      problem: nil,
      phase: if(Gateway.draining?(config.name), do: :draining, else: :serving),
      scope: nil,
      announcing?: false,
      announced_at: now() - @pause,
      repair: nil,
      received: {0, %{}},
      # `{callers, members that have not acknowledged}` of leave/1
      leaving: nil,
      warned: Warnings.new()
    }

    {:ok, state, {:continue, :begin}}
  end

  @impl true
  def handle_continue(:begin, state) do
    # Also tells a node that becomes distributed.
    :net_kernel.monitor_nodes(true)
    state = open(state)
    if state.open == nil and state.problem == nil, do: warn_not_distributed()
    {:noreply, state}
  end

  defp warn_not_distributed do
    Logger.warning(
      "mesh: this node is not distributed, so the gateway serves only its own endpoints. Start the " <>
        "node with a name: `--name NAME@HOST` or `--sname NAME`, in a release RELEASE_DISTRIBUTION=name " <>
        "and RELEASE_NODE=NAME@HOST. The mesh starts when the node becomes distributed"
    )
  end

  @impl true
  def handle_call(:leave, from, %{leaving: {callers, waiting}} = state),
    do: {:noreply, %{state | leaving: {[from | callers], waiting}}}

  def handle_call(:leave, _from, %{phase: :draining} = state), do: {:reply, :ok, state}

  def handle_call(:leave, from, state) do
    members = Scope.others(state.name)
    state = %{state | phase: :draining, leaving: {[from], MapSet.new(members)}}
    say_hello(state, members)
    Process.send_after(self(), :left, @acknowledge)
    {:noreply, left(state)}
  end

  @impl true
  def handle_info({:exmesh_hello, hello}, state) do
    sender = Hello.sender(hello)
    {:message_queue_len, waiting} = Process.info(self(), :message_queue_len)

    cond do
      state.open == nil ->
        {:noreply, state}

      waiting > @longest_mailbox ->
        drop_hellos(waiting)
        {:noreply, flood(state, sender)}

      true ->
        {:noreply, received(state, hello, sender)}
    end
  end

  def handle_info({:exmesh_ack, member}, %{leaving: {callers, waiting}} = state),
    do: {:noreply, left(%{state | leaving: {callers, MapSet.delete(waiting, member)}})}

  def handle_info(:left, %{leaving: {callers, _waiting}} = state),
    do: {:noreply, left(%{state | leaving: {callers, MapSet.new()}})}

  def handle_info({:nodeup, _node}, %{open: nil} = state), do: {:noreply, open(state)}

  def handle_info(:announced, state), do: {:noreply, announce_soon(state)}

  def handle_info(:announce, state) do
    say_hello(state, Scope.others(state.name))
    {:noreply, %{state | announcing?: false, announced_at: now()}}
  end

  def handle_info(:repair, %{open: nil} = state), do: {:noreply, open(%{state | repair: nil})}

  def handle_info(:repair, state) do
    state = locate(state)
    say_hello(state, Scope.others(state.name))
    {:noreply, repair_later(%{state | repair: nil})}
  end

  def handle_info({:greet, members, answer?}, state) do
    say_hello(state, members, answer?)
    {:noreply, state}
  end

  def handle_info(:ask, state) do
    say_hello(state, Scope.others(state.name), true)
    {:noreply, state}
  end

  def handle_info({:acknowledge, members}, state) do
    for member <- members, do: deliver(member, {:exmesh_ack, self()})
    {:noreply, state}
  end

  def handle_info(:join, state), do: {:noreply, join(state)}

  def handle_info({:DOWN, scope, :process, _name, _reason}, %{scope: scope} = state) do
    Process.send_after(self(), :join, @join_again)
    {:noreply, %{state | scope: nil}}
  end

  def handle_info(_other, state), do: {:noreply, state}

  # The data plane opens the port once and returns the same key for as long as it lives.
  defp open(state) do
    if Node.alive?() do
      case listen(state, Addresses.to_bind(state.mesh.ip)) do
        {:ok, opened} -> opened(state, opened)
        {:error, error} -> not_open(state, error)
      end
    else
      state
    end
  end

  defp listen(state, ips) do
    config = %{ips: ips, port: state.mesh.port, prefer: state.mesh.prefer}

    case Native.open_mesh(Gateway.ref(state.name), config) do
      # Many containers have no IPv6. It is not required unless it was asked for.
      {:error, {kind, "[" <> _, _detail} = error} when kind in [:eaddrnotavail, :other] ->
        case Enum.reject(ips, &String.contains?(&1, ":")) do
          ipv4 when ipv4 not in [[], ips] and state.mesh.ip in [nil, :any, :loopback] ->
            listen(state, ipv4)

          _ ->
            {:error, error}
        end

      result ->
        result
    end
  end

  defp opened(state, %{key: key, addresses: [%{port: port} | _] = addresses}) do
    incarnation = Hello.incarnation(key)
    at = Enum.map(addresses, &Gateway.text({&1.ip, &1.port}))
    Memory.put_listener(state.name, {:open, at})

    if Memory.incarnation(state.name) != incarnation do
      Memory.put_incarnation(state.name, incarnation)
      at = Enum.join(at, " and ")
      Logger.info("mesh: #{node()} listens for the gateways of other nodes on #{at}")
    end

    open = %{key: key, port: port, bound: Enum.map(addresses, & &1.ip), ips: []}
    %{state | open: open, problem: nil} |> locate() |> join() |> repair_later()
  end

  defp not_open(state, {kind, address, detail} = problem) do
    text = "#{address}: #{reason(kind, detail)}; it tries again every #{div(@repair, 1_000)} s"
    Memory.put_listener(state.name, {:problem, text})

    if problem != state.problem do
      Logger.error(
        "mesh: cannot listen on #{address} for the gateways of other nodes: #{reason(kind, detail)}. " <>
          "The gateway serves only its own endpoints and tries again every #{div(@repair, 1_000)} s. " <>
          "Set `mesh: [port: ..., ip: ...]` to what is free on this machine"
      )
    end

    repair_later(%{state | problem: problem})
  end

  defp reason(:eaddrinuse, _detail), do: "the port is in use"
  defp reason(:eaddrnotavail, _detail), do: "this machine does not have the address"
  defp reason(:eacces, _detail), do: "no permission for the port"
  defp reason(_kind, detail), do: to_string(detail)

  # Addresses of interfaces change.
  defp locate(%{open: open} = state),
    do: %{state | open: %{open | ips: Addresses.to_announce(open.bound)}}

  defp join(state) do
    scope = Process.monitor(Scope.name(state.name))
    if joined?(state), do: say_hello(state, Scope.others(state.name), true)
    %{state | scope: scope}
  end

  defp joined?(state) do
    :pg.join(Scope.name(state.name), Scope.group(), self()) == :ok
  catch
    # The monitor reports it.
    :exit, _reason -> false
  end

  # Not all nodes at the same time.
  defp repair_later(%{repair: nil} = state) do
    time = div(@repair * 4, 5) + :rand.uniform(div(@repair * 2, 5))
    %{state | repair: Process.send_after(self(), :repair, time)}
  end

  defp repair_later(state), do: state

  defp announce_soon(%{announcing?: true} = state), do: state

  defp announce_soon(state) do
    Process.send_after(self(), :announce, max(state.announced_at + @pause, now()), abs: true)
    %{state | announcing?: true}
  end

  defp now, do: System.monotonic_time(:millisecond)

  defp say_hello(state, members, answer? \\ false)
  defp say_hello(%{open: nil}, _members, _answer?), do: :ok
  defp say_hello(_state, [], _answer?), do: :ok

  defp say_hello(%{open: open} = state, members, answer?) do
    hello =
      Hello.build(%{
        gateway: inspect(state.name),
        key: open.key,
        port: open.port,
        ips: open.ips,
        advertise: advertise(state.mesh.advertise, open.port),
        state: state.phase,
        services: services(state),
        checks: state |> announced() |> Checks.own() |> Hello.checks(),
        seen: state.name |> Memory.pins() |> Map.keys(),
        answer: answer?
      })

    for member <- members, do: deliver(member, {:exmesh_hello, hello})
    :ok
  end

  # A node that does not read must not block this process. A lost hello is repaired.
  defp deliver(pid, message), do: Process.send(pid, message, [:noconnect, :nosuspend])

  defp advertise(nil, _port), do: nil
  defp advertise({host, port}, mesh_port), do: {host, port || mesh_port}

  defp announced(%{mesh: %{services: allowed}, name: name}) do
    allowed = if allowed == :all, do: true, else: allowed

    for service <- Registry.announced(name),
        Candidates.wanted?(service.endpoint, service.application, allowed),
        do: service
  end

  defp services(state) do
    for(service <- announced(state), entry = Hello.service(service), do: entry)
    |> Hello.services()
  end

  defp received(state, hello, sender) do
    case admit(state, hello) do
      {:ok, state} ->
        case Hello.parse(hello, inspect(state.name)) do
          {:ok, hello} ->
            peers = state.name |> Memory.peers_process() |> Process.whereis()
            if peers, do: send(peers, {:hello, hello})
            state

          {:error, kind, text} ->
            warn(state, {kind, sender}, "#{sender || "an unknown node"}: #{text}")
        end

      {:flood, state} ->
        flood(state, sender)
    end
  end

  defp admit(%{received: {then, counts}} = state, hello) do
    member = with %{member: pid} when is_pid(pid) <- hello, do: pid, else: (_ -> nil)
    now = System.monotonic_time(:second)
    counts = if now == then, do: counts, else: %{}
    count = Map.get(counts, member, 0)

    if count < @most_hellos and (count > 0 or map_size(counts) < @most_members),
      do: {:ok, %{state | received: {now, Map.put(counts, member, count + 1)}}},
      else: {:flood, state}
  end

  defp drop_hellos(0), do: :ok

  defp drop_hellos(most) do
    receive do
      {:exmesh_hello, _hello} -> drop_hellos(most - 1)
    after
      0 -> :ok
    end
  end

  defp flood(state, sender) do
    warn(
      state,
      {:flood, sender},
      "#{sender || "an unknown node"} says hello more than #{@most_hellos} times a second; " <>
        "the gateway ignores what is too much"
    )
  end

  defp warn(state, key, text), do: %{state | warned: Warnings.warn(state.warned, key, text)}

  defp left(%{leaving: {callers, waiting}} = state) do
    if MapSet.size(waiting) == 0 do
      Enum.each(callers, &GenServer.reply(&1, :ok))
      %{state | leaving: nil}
    else
      state
    end
  end
end
