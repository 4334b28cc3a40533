defmodule ExServiceMeshRouter.Gateway do
  @moduledoc false
  # Opens the data plane, which binds the sockets, and drains it. The gateway's supervisor owns the
  # data plane: it stops when that process dies. A crash of this process stops nothing; the reference
  # is in the gateway's Store.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{ListenError, Native}
  alias ExServiceMeshRouter.Gateway.{Event, Store, TrustedProxies}

  # The VM closes the sockets of a process up to some milliseconds after its end.
  @retries 100
  @retry_after 10

  # This process exits when the data plane is lost, which ends the supervisor.
  def child_spec({config, calls}) do
    start = {__MODULE__, :start_link, [config, calls]}
    %{id: __MODULE__, start: start, restart: :transient, significant: true}
  end

  # Called by the supervisor, which becomes the owner of the data plane. `calls` are functions of later
  # parts: `sockets` returns sockets that listen already, with the keys of Native.open/2, or nil, and
  # `opened` is called when the data plane has them; `free` takes the gateway's port from endpoints of this
  # system, see Listeners.Contention.free/1; `leave` tells other nodes that this one stops, see Mesh.leave/1.
  def start_link(config, calls) do
    GenServer.start_link(__MODULE__, {config, calls, self()}, name: process_name(config.name))
  end

  @doc "Returns the reference of the data plane, for the functions of Native."
  def ref(name), do: fetch(name, :gateway)

  @doc "Returns the configuration of the gateway."
  def config(name), do: fetch(name, :config)

  @doc "Returns whether the gateway is stopping, also during `timeouts.lame_duck`."
  def draining?(name), do: Store.get(name, :draining, false)

  @doc "Returns whether the gateway accepts connections, which it still does during `timeouts.lame_duck`."
  def listens?(name), do: not draining?(name) or Store.get(name, :stop_listening_at) != nil

  @doc "Returns whether all workers have drained."
  def drained?(name),
    do: map_size(Store.all(name, :stopped)) == config(name).native.workers

  @doc "Returns whether the queues of the sockets outlive this VM, see `sockets` of start_link/2."
  def keep_queue?(name), do: Store.get(name, :keep_queue, false)

  @doc "Returns the bound addresses as `[{ip, port}]`, the IP addresses as text."
  def addresses(name), do: fetch(name, :bound)

  @doc "Formats one of these addresses."
  def text({ip, port}), do: if(ip =~ ":", do: "[#{ip}]:#{port}", else: "#{ip}:#{port}")

  # The Store has nothing before the sockets are bound.
  defp fetch(name, key), do: Store.get(name, key) || exit({:noproc, {__MODULE__, key, [name]}})

  @doc """
  Stops listening and returns when the open requests have ended, at the latest after
  `timeouts.drain`. The gateway does not start again.
  """
  def drain(name), do: call(name, :drain)

  @doc """
  Returns descriptors of the listening sockets for another process, which the caller must close; `[]` if this
  gateway stops. A stop that begins later leaves the queues to the other process.
  """
  def share(name), do: with(:ok <- call(name, :share), do: [])

  @doc "Closes the sockets, which another process has, too, and begins to drain."
  def release(name), do: call(name, :release)

  defp call(name, request) do
    GenServer.call(process_name(name), request, :infinity)
  catch
    :exit, _reason ->
      # Either this process is restarting, or the gateway has ended.
      if Store.running?(name) do
        Process.sleep(@retry_after)
        call(name, request)
      else
        :ok
      end
  end

  @doc """
  Tells the workers to drain within `drain` milliseconds and to return. `:lost` if the reference is
  invalid because its module was purged, see Worker; the data plane then ends with the supervisor.
  """
  def stop(name, gateway, drain) do
    unless draining?(name), do: leave(name)
    Store.put(name, :draining, true)
    Native.stop(gateway, if(drain == :infinity, do: nil, else: drain))
  rescue
    ArgumentError -> :lost
  end

  # Before this node refuses requests of other nodes.
  defp leave(name) do
    with leave when leave != nil <- Store.get(name, :leave), do: leave.(name)
  end

  @doc "Called by a worker that stopped for another reason than an exit of its supervisor."
  def stopped(name, worker) do
    Store.put(name, {:stopped, worker}, true)
    GenServer.cast(process_name(name), :stopped)
  end

  defp process_name(name), do: Module.concat(name, Gateway)

  @impl true
  def init({config, calls, owner}) do
    Process.flag(:trap_exit, true)

    if Store.get(config.name, :gateway),
      do: {:ok, restored(config)},
      else: first_init(config, calls, owner)
  end

  # A crash of this process must not prolong `timeouts.lame_duck`.
  defp restored(config) do
    with time when time != nil <- Store.get(config.name, :stop_listening_at),
         do: Process.send_after(self(), :stop_listening, time, abs: true)

    %{config: config, waiting: []}
  end

  defp first_init(config, calls, owner) do
    with :ok <- load(),
         opened = with_sockets(config, calls.sockets.(config)),
         result = open(opened, calls.free, owner),
         calls.opened.(config),
         {:ok, gateway} <- result do
      TrustedProxies.add(config.native.trusted_proxies)
      bound = Native.addrs(gateway)
      log_listening(bound, opened)
      Store.put(config.name, :config, config)
      Store.put(config.name, :bound, bound)
      Store.put(config.name, :keep_queue, opened.native.keep_queue)
      if config.mesh, do: Store.put(config.name, :leave, calls.leave)
      Store.put(config.name, :gateway, gateway)
      emit_started(bound, config)
      {:ok, %{config: config, waiting: []}}
    else
      {:error, error} -> {:stop, {:shutdown, error}}
    end
  end

  @impl true
  def handle_call(:drain, from, %{config: config} = state) do
    unless draining?(config.name) do
      announce_drain(config.name)
      begin_drain(config, lame_duck(config))
    end

    {:noreply, reply_if_drained(%{state | waiting: [from | state.waiting]})}
  end

  # In this process, as a stop is: the filter of a stop (see Native.stop/2) would be on the shared socket.
  def handle_call(:share, _from, %{config: %{name: name}} = state),
    do: {:reply, if(listens?(name), do: Native.listeners(ref(name)), else: []), state}

  def handle_call(:release, _from, %{config: config} = state) do
    Native.release(ref(config.name))
    begin_drain(config, 0)
    {:reply, :ok, state}
  end

  @impl true
  def handle_cast(:stopped, %{config: config} = state) do
    if draining?(config.name) do
      {:noreply, reply_if_drained(state)}
    else
      Logger.warning("ExServiceMeshRouter lost its data plane and opens a new one")
      {:stop, {:shutdown, :lost}, state}
    end
  end

  @impl true
  def handle_info(:stop_listening, state) do
    # Not if the sockets were released meanwhile.
    if listens?(state.config.name), do: begin_drain(state.config, 0)
    {:noreply, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  # After a crash of this process the gateway still runs.
  @impl true
  def terminate(reason, state) do
    if reason == :shutdown or match?({:shutdown, _}, reason),
      do: Event.now([:gateway, :stop], %{gateway: state.config.name, reason: reason})
  end

  defp emit_started(bound, config) do
    Event.now([:gateway, :start], %{
      gateway: config.name,
      addresses: bound,
      workers: config.native.workers
    })
  end

  defp lame_duck(%{mesh: nil, timeouts: timeouts}), do: timeouts.lame_duck
  defp lame_duck(%{mesh: mesh, timeouts: timeouts}), do: max(mesh.lame_duck, timeouts.lame_duck)

  # See Systemd.Startup.
  defp announce_drain(name) do
    with announce when announce != nil <- Store.get(name, :on_drain), do: announce.()
  end

  defp begin_drain(config, 0) do
    Logger.info("ExServiceMeshRouter stops listening and drains")
    Store.delete(config.name, :stop_listening_at)
    stop(config.name, ref(config.name), config.timeouts.drain)
  end

  # Load balancers learn of the stop later than this node.
  defp begin_drain(config, lame_duck) do
    Logger.info(
      "ExServiceMeshRouter drains in #{lame_duck} ms and asks its clients to disconnect"
    )

    leave(config.name)
    Native.lame_duck(ref(config.name))
    time = System.monotonic_time(:millisecond) + lame_duck
    Store.put(config.name, :draining, true)
    Store.put(config.name, :stop_listening_at, time)
    Process.send_after(self(), :stop_listening, time, abs: true)
  end

  defp reply_if_drained(%{config: config} = state) do
    if drained?(config.name) do
      Enum.each(state.waiting, &GenServer.reply(&1, :ok))
      %{state | waiting: []}
    else
      state
    end
  end

  defp load do
    case Native.load() do
      :ok -> :ok
      {:error, text} -> {:error, %ListenError{kind: :library, detail: text}}
    end
  end

  defp with_sockets(config, nil), do: config

  defp with_sockets(config, sockets),
    do: %{config | native: Map.merge(config.native, sockets)}

  # If an endpoint of this system has the port, `free` may take it.
  defp open(config, free, owner) do
    with {:error, %ListenError{kind: :eaddrinuse} = error} <-
           bind(config, owner, config.native.ips) do
      case free.(config) do
        :ok -> open_again(config, owner)
        {:error, nil} -> if closing?(config), do: open_again(config, owner), else: {:error, error}
        {:error, holder} -> {:error, %{error | holder: holder}}
      end
    end
  end

  defp open_again(config, owner, retries \\ @retries) do
    with {:error, %ListenError{kind: :eaddrinuse}} when retries > 0 <-
           bind(config, owner, config.native.ips) do
      Process.sleep(@retry_after)
      open_again(config, owner, retries - 1)
    end
  end

  # Another VM that had the port may be ending.
  defp closing?(config), do: config.handover != nil or opened?(config)

  # Whether this gateway had the port before. After a kill of its supervisor, the next one starts
  # before the VM has closed the sockets.
  defp opened?(config), do: :persistent_term.get(opened_key(config), false)
  defp opened_key(config), do: {__MODULE__, config.name, config.port}

  defp bind(config, owner, ips) do
    case Native.open(%{config.native | ips: ips}, owner) do
      {:ok, gateway} ->
        if config.port != 0, do: :persistent_term.put(opened_key(config), true)
        {:ok, gateway}

      {:error, {kind, address, detail}} ->
        error = %ListenError{kind: kind, address: address, detail: detail, port: config.port}
        open_without_ipv6(config, owner, ips, error)
    end
  end

  # :loopback and :any do not require IPv6, which many containers lack.
  defp open_without_ipv6(%{ip: ip} = config, owner, ips, %{kind: kind, address: "[" <> _} = error)
       when ip in [:loopback, :any] and kind in [:eaddrnotavail, :other] do
    case Enum.reject(ips, &String.contains?(&1, ":")) do
      ^ips -> {:error, error}
      ipv4 -> bind(config, owner, ipv4)
    end
  end

  defp open_without_ipv6(_config, _owner, _ips, error), do: {:error, error}

  defp log_listening(addresses, config) do
    urls = Enum.map_join(addresses, " and ", &("http://" <> text(&1)))

    workers =
      if config.native.workers == 1, do: "1 worker", else: "#{config.native.workers} workers"

    # Of sockets that something else has bound, that says when the gateway accepts.
    listening = if config.native.accepting, do: "listening", else: "will listen"
    Logger.info("ExServiceMeshRouter #{listening} on #{urls} (#{workers})")
  end
end
