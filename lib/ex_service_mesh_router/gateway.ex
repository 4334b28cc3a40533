defmodule ExServiceMeshRouter.Gateway do
  @moduledoc false
  # Owns the data plane: opens it (which binds the sockets) and holds the reference that all others
  # use. When this process dies, the data plane stops; whatever is started after it in the tree
  # starts anew with it.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Forwarded, ListenError, Native, Telemetry}
  alias ExServiceMeshRouter.PrivateListeners.Contention

  def start_link(config) do
    GenServer.start_link(__MODULE__, config, name: process_name(config.name))
  end

  @doc "The data plane's reference, an argument for the functions of Native."
  def ref(name), do: GenServer.call(process_name(name), :ref)

  @doc "The configuration that it was started with."
  def config(name), do: GenServer.call(process_name(name), :config)

  @doc "Whether it has been told to stop listening."
  def draining?(name), do: GenServer.call(process_name(name), :draining?)

  @doc "`[{ip, port}]` as bound."
  def addresses(name), do: name |> ref() |> Native.addrs()

  @doc """
  Stops listening, and returns when the requests in flight are through, at the latest after
  `timeouts.drain`. The gateway stays down.
  """
  def drain(name) do
    GenServer.call(process_name(name), :drain, :infinity)
  catch
    # It is gone, and with it whatever was to be drained.
    :exit, _reason -> :ok
  end

  @doc "Tells the workers to finish within `drain` milliseconds and to return."
  def stop(gateway, drain) do
    Native.stop(gateway, if(drain == :infinity, do: nil, else: drain))
  rescue
    # Lost with its module, see Worker. The data plane then ends with this process.
    ArgumentError -> :ok
  end

  @doc "Called by a worker that was stopped, or has lost the reference, and not by its supervisor."
  def stopped(name, worker), do: GenServer.cast(process_name(name), {:stopped, worker})

  defp process_name(name), do: Module.concat(name, Gateway)

  @impl true
  def init(config) do
    with :ok <- load(),
         {:ok, gateway} <- open(config) do
      Forwarded.add_trusted_proxies(config.native.trusted_proxies)
      log_listening(Native.addrs(gateway), config)
      started(gateway, config)
      {:ok, %{gateway: gateway, config: config, draining: nil}}
    else
      {:error, error} -> {:stop, {:shutdown, error}}
    end
  end

  @impl true
  def handle_call(:ref, _from, state), do: {:reply, state.gateway, state}

  def handle_call(:draining?, _from, state), do: {:reply, state.draining != nil, state}
  def handle_call(:config, _from, state), do: {:reply, state.config, state}

  def handle_call(:drain, from, %{draining: nil} = state) do
    Logger.info("ExServiceMeshRouter stops listening and drains")
    stop(state.gateway, state.config.timeouts.drain)
    workers = MapSet.new(0..(state.config.native.workers - 1))
    {:noreply, %{state | draining: %{workers: workers, waiting: [from]}}}
  end

  def handle_call(:drain, from, %{draining: draining} = state) do
    {:noreply, drained(%{state | draining: %{draining | waiting: [from | draining.waiting]}})}
  end

  @impl true
  def handle_cast({:stopped, _worker}, %{draining: nil} = state) do
    Logger.warning("ExServiceMeshRouter lost its data plane and opens it anew")
    {:stop, {:shutdown, :stopped}, state}
  end

  def handle_cast({:stopped, worker}, %{draining: draining} = state) do
    workers = MapSet.delete(draining.workers, worker)
    {:noreply, drained(%{state | draining: %{draining | workers: workers}})}
  end

  @impl true
  def terminate(reason, state) do
    Telemetry.now([:gateway, :stop], %{gateway: state.config.name, reason: reason})
  end

  # Traps exits, so that its end can be told.
  defp started(gateway, config) do
    Process.flag(:trap_exit, true)

    Telemetry.now([:gateway, :start], %{
      gateway: config.name,
      addresses: Native.addrs(gateway),
      workers: config.native.workers
    })
  end

  defp drained(%{draining: %{workers: workers, waiting: waiting}} = state) do
    if MapSet.size(workers) == 0 do
      Enum.each(waiting, &GenServer.reply(&1, :ok))
      put_in(state.draining.waiting, [])
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

  # The VM closes a socket some time after the process has ended that had it, at most milliseconds.
  @handed_over 100
  @look_again 10

  # An endpoint of this system that has the port may have to hand it over.
  defp open(config) do
    with {:error, %ListenError{kind: :eaddrinuse} = error} <- open(config, config.ips) do
      case Contention.free(config) do
        :ok -> open_handed_over(config, @handed_over)
        {:error, holder} -> {:error, %{error | holder: holder}}
      end
    end
  end

  defp open_handed_over(config, looks) do
    with {:error, %ListenError{kind: :eaddrinuse}} when looks > 0 <- open(config, config.ips) do
      Process.sleep(@look_again)
      open_handed_over(config, looks - 1)
    end
  end

  defp open(config, ips) do
    case Native.open(%{config.native | ips: ips}) do
      {:ok, gateway} ->
        {:ok, gateway}

      {:error, {kind, address, detail}} ->
        error = %ListenError{kind: kind, address: address, detail: detail, port: config.port}
        open_without_ipv6(config, ips, error)
    end
  end

  # Nobody asked for IPv6 by name with :loopback and :any, and in many containers there is none.
  defp open_without_ipv6(%{ip: ip} = config, ips, %{kind: kind, address: "[" <> _} = error)
       when ip in [:loopback, :any] and kind in [:eaddrnotavail, :other] do
    case Enum.reject(ips, &String.contains?(&1, ":")) do
      ^ips -> {:error, error}
      ipv4 -> open(config, ipv4)
    end
  end

  defp open_without_ipv6(_config, _ips, error), do: {:error, error}

  defp log_listening(addresses, config) do
    urls = Enum.map_join(addresses, " and ", fn {ip, port} -> "http://#{bracket(ip)}:#{port}" end)

    workers =
      if config.native.workers == 1, do: "1 worker", else: "#{config.native.workers} workers"

    Logger.info("ExServiceMeshRouter listening on #{urls} (#{workers})")
  end

  defp bracket(ip), do: if(String.contains?(ip, ":"), do: "[#{ip}]", else: ip)
end
