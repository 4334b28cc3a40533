defmodule ExServiceMeshRouter.Discovery do
  @moduledoc false
  # Finds the Phoenix endpoints of the system. It probes an endpoint on Phoenix's start event, when its
  # process or server exits, and every ten seconds for changes without an event. The result of a probe
  # becomes a service of the registry.
  #
  # After the start event, the listener may not be bound yet (a restart, a suspended listener). An
  # endpoint that should listen and does not is probed again after 5 ms, 10 ms, and so on.
  #
  # After a crash, discovery starts with the endpoints of the registry, which keep their routes until a
  # probe has another result.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Listeners, Registry}
  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Discovery.{Claim, Monitors, PhoenixEvents, Probe}
  alias ExServiceMeshRouter.Endpoint.Candidates
  alias ExServiceMeshRouter.Registry.Service

  @rescan 10_000
  @subscribe_again 25
  @retries [5, 10, 20, 40, 80, 160, 320, 640, 1_000]

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  @doc "Returns the name of the discovery process of a gateway."
  def process_name(name), do: Module.concat(name, Discovery)

  @doc "Waits until no probe or retry is pending. For tests."
  def await_settled(name, timeout) do
    if Process.whereis(process_name(name)),
      do: GenServer.call(process_name(name), :settled, timeout),
      else: :ok
  end

  @doc "Probes all endpoints, also those that started without an event."
  def probe_all(name), do: GenServer.call(process_name(name), :probe_all)

  @doc "Returns texts about the endpoints that should listen and do not, or are being probed."
  def missing(name), do: GenServer.call(process_name(name), :missing)

  @impl true
  def init(config) do
    Process.flag(:trap_exit, true)

    state = %{
      name: config.name,
      discover: config.discover,
      own_port: config.port,
      dev_domain: config.dev_domain,
      private: {config.name, config.private_listeners},
      in_vm: {config.name, config.in_vm},
      http2: config.http2,
      subscribed?: false,
      # endpoint => its state, see know/3
      endpoints: %{},
      # monitor => endpoint, of endpoints and of their servers
      monitors: %{},
      # monitor of a probe => endpoint
      probes: %{},
      # callers of await_settled/2
      waiting: []
    }

    {:ok, state, {:continue, :begin}}
  end

  @impl true
  def handle_call(:settled, from, state),
    do: {:noreply, settled(%{state | waiting: [from | state.waiting]})}

  def handle_call(:probe_all, _from, state), do: {:reply, :ok, probe_all(state, @retries)}

  def handle_call(:missing, _from, state) do
    texts =
      for {endpoint, known} <- Enum.sort(state.endpoints),
          text = missing_text(known),
          do: "#{inspect(endpoint)} #{text}"

    {:reply, texts, state}
  end

  @impl true
  def handle_continue(:begin, state) do
    state = restore(state)
    # Retries, because the server of a restored endpoint may be restarting.
    {:noreply, scan(state, if(state.endpoints == %{}, do: [], else: @retries))}
  end

  @impl true
  def handle_info(:scan, state), do: {:noreply, scan(state, [])}

  def handle_info({:endpoint_started, endpoint, application}, state) do
    if Candidates.wanted?(endpoint, application, state.discover),
      do: {:noreply, state |> know(endpoint, application) |> probe(endpoint, @retries)},
      else: {:noreply, state}
  end

  def handle_info({:probe, endpoint, retries}, state),
    do: {:noreply, probe(state, endpoint, retries)}

  def handle_info({:probed, monitor, result}, state) when is_map_key(state.probes, monitor) do
    Process.demonitor(monitor, [:flush])
    {endpoint, state} = probe_done(state, monitor)
    {:noreply, state |> apply_result(endpoint, result) |> settled()}
  end

  # A probe that failed or hung has no result.
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state)
      when is_map_key(state.probes, monitor) do
    {endpoint, state} = probe_done(state, monitor)
    {:noreply, state |> retry(endpoint) |> settled()}
  end

  def handle_info({:DOWN, monitor, :process, pid, _reason}, state)
      when is_map_key(state.monitors, monitor) do
    endpoint = state.monitors[monitor]

    {:noreply,
     state |> Monitors.drop(endpoint) |> down(endpoint, pid) |> probe(endpoint, @retries)}
  end

  def handle_info({:probe_timeout, pid}, state) do
    Process.exit(pid, :kill)
    {:noreply, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state), do: PhoenixEvents.unsubscribe(state.name)

  defp restore(state) do
    for %{source: :endpoint} = service <- Registry.own(state.name), reduce: state do
      state ->
        state = know(state, service.endpoint, service.application)
        put_in(state.endpoints[service.endpoint].service, service)
    end
  end

  defp scan(state, retries), do: state |> schedule_scan() |> probe_all(retries)

  defp probe_all(state, retries) do
    found = Candidates.all(state.discover)

    state = Enum.reduce(Map.keys(state.endpoints) -- Map.keys(found), state, &forget(&2, &1))

    state
    |> announce(Map.drop(found, Map.keys(state.endpoints)))
    |> then(
      &Enum.reduce(Map.keys(found), &1, fn endpoint, state -> probe(state, endpoint, retries) end)
    )
  end

  # New endpoints claim their hosts together and before they are probed: the owner of a host must not
  # depend on the order of the answers.
  defp announce(state, found) do
    {services, state} =
      Enum.map_reduce(found, state, fn {endpoint, application}, state ->
        host = Probe.configured_host(endpoint, application)

        {service, state} =
          state |> know(endpoint, application) |> claim(endpoint, host, [], false)

        {service, put_in(state.endpoints[endpoint].service, service)}
      end)

    if services != [], do: Registry.put_all(state.name, services)
    state
  end

  # Telemetry may start later than the gateway. The scan after the subscription finds endpoints that
  # started in between.
  defp schedule_scan(state) do
    state =
      if state.subscribed?,
        do: state,
        else: %{state | subscribed?: PhoenixEvents.subscribe(state.name, self())}

    pause =
      if state.subscribed? or not PhoenixEvents.available?(), do: @rescan, else: @subscribe_again

    Process.send_after(self(), :scan, pause)
    state
  end

  defp know(state, endpoint, application) do
    new = %{
      application: application,
      service: nil,
      probing: nil,
      again: nil,
      retries: [],
      retrying?: false,
      watch: [],
      warned: nil,
      problem: nil,
      in_vm: false,
      # Of the last probe that found a process: whether it should listen. And whether it does.
      awaited?: false,
      listens?: false
    }

    %{state | endpoints: Map.put_new(state.endpoints, endpoint, new)}
  end

  # Running endpoints stay, because a code reload unloads their module for a moment.
  defp forget(state, endpoint) do
    if Process.whereis(endpoint) do
      state
    else
      state = Monitors.drop(state, endpoint)
      Registry.delete(state.name, {:endpoint, endpoint})
      %{state | endpoints: Map.delete(state.endpoints, endpoint)}
    end
  end

  # One probe at a time per endpoint; an event meanwhile starts another one after it.
  defp probe(state, endpoint, retries) do
    case state.endpoints[endpoint] do
      nil -> state
      %{probing: nil} = known -> start_probe(state, endpoint, known, retries)
      known -> put_in(state.endpoints[endpoint], %{known | again: known.again || retries})
    end
  end

  defp start_probe(state, endpoint, known, retries) do
    listen = &Listeners.provide(state.private, endpoint, known.application, &1)
    in_vm = if endpoint in state.http2, do: put_elem(state.in_vm, 1, false), else: state.in_vm
    dispatch = &Listeners.dispatchers(in_vm, endpoint, &1)
    monitor = Probe.start(endpoint, known.application, listen, dispatch)
    known = %{known | probing: monitor, again: nil, retries: retries, retrying?: false}
    %{put_in(state.endpoints[endpoint], known) | probes: Map.put(state.probes, monitor, endpoint)}
  end

  defp probe_done(state, monitor) do
    {endpoint, state} = pop_in(state.probes[monitor])

    case state.endpoints do
      %{^endpoint => known} ->
        {endpoint, put_in(state.endpoints[endpoint], %{known | probing: nil})}

      _ ->
        {endpoint, state}
    end
  end

  defp apply_result(state, endpoint, _result) when not is_map_key(state.endpoints, endpoint),
    do: state

  defp apply_result(state, endpoint, result) do
    known = state.endpoints[endpoint]
    waiting? = result.pid != nil and result.expected? and result.upstreams == []
    upstreams = if waiting? and known.retries == [], do: result.fallback, else: result.upstreams

    if waiting? and known.retries == [],
      do: Listeners.complain(endpoint, result.problem, known.problem)

    if upstreams != [] and result.in_vm != known.in_vm, do: say(endpoint, result.in_vm)

    state =
      update_in(state.endpoints[endpoint], fn known ->
        in_vm = if upstreams == [], do: known.in_vm, else: result.in_vm
        awaited? = if result.pid, do: result.awaited?, else: known.awaited?
        listens? = result.upstreams != []
        %{known | problem: result.problem, in_vm: in_vm, awaited?: awaited?, listens?: listens?}
      end)

    state =
      state
      |> Monitors.put(endpoint, [result.pid | result.watch])
      |> publish(endpoint, result.host, upstreams, result.in_vm)

    cond do
      known.again -> probe(state, endpoint, known.again)
      waiting? -> retry(state, endpoint)
      true -> state
    end
  end

  defp missing_text(%{listens?: true}), do: nil
  defp missing_text(%{awaited?: true}), do: "does not listen"
  defp missing_text(%{probing: probe}) when probe != nil, do: "is being probed"
  defp missing_text(%{retrying?: true}), do: "has not answered"
  defp missing_text(_known), do: nil

  # The user need not act: requests are served through the socket.
  defp say(endpoint, why) when is_binary(why),
    do:
      Logger.info(
        "#{inspect(endpoint)} gets its requests through its socket, not in the VM: #{why}"
      )

  defp say(_endpoint, _in_vm), do: :ok

  defp retry(state, endpoint) do
    case state.endpoints[endpoint] do
      %{retries: [pause | rest]} ->
        Process.send_after(self(), {:probe, endpoint, rest}, pause)
        put_in(state.endpoints[endpoint].retrying?, true)

      _ ->
        state
    end
  end

  # Without a dispatcher, the endpoint still listens.
  defp down(state, endpoint, pid) do
    case state.endpoints[endpoint] do
      %{service: %Service{} = service} ->
        dispatcher? = Enum.any?(service.upstreams, &(pid in Upstream.dispatchers(&1)))
        left = if dispatcher?, do: Enum.map(service.upstreams, &Upstream.place/1), else: []
        put_service(state, endpoint, %{service | upstreams: left})

      _ ->
        state
    end
  end

  defp publish(state, endpoint, host, upstreams, in_vm) do
    {service, state} = claim(state, endpoint, host, upstreams, in_vm)
    put_service(state, endpoint, service)
  end

  defp claim(state, endpoint, host, upstreams, in_vm) do
    known = state.endpoints[endpoint]
    claim = Claim.new(endpoint, known.application, host, state)
    if claim.mistake && claim.mistake != known.warned, do: Logger.warning(claim.mistake)
    service = Claim.service(claim, upstreams, in_vm, state)
    {service, put_in(state.endpoints[endpoint].warned, claim.mistake)}
  end

  defp put_service(state, endpoint, service) do
    if same?(state.endpoints[endpoint].service, service) do
      state
    else
      Registry.put(state.name, service)
      put_in(state.endpoints[endpoint].service, service)
    end
  end

  defp settled(%{waiting: []} = state), do: state

  defp settled(state) do
    if state.probes == %{} and not Enum.any?(state.endpoints, fn {_, it} -> it.retrying? end) do
      Enum.each(state.waiting, &GenServer.reply(&1, :ok))
      %{state | waiting: []}
    else
      state
    end
  end

  # The registry sets `since`.
  defp same?(nil, _service), do: false
  defp same?(known, service), do: %{known | since: nil} == %{service | since: nil}
end
