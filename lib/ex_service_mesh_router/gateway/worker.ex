defmodule ExServiceMeshRouter.Gateway.Worker do
  @moduledoc false
  # Runs one thread of the data plane. A runner process is in one NIF call for as long as the worker
  # serves, so it receives no messages and cannot be stopped from outside. This process, its owner, is
  # the supervisor's child: it tells the data plane to stop and waits for the drain.
  #
  # When the call returns unexpectedly, the owner exits and its supervisor starts another one. If the
  # call fails soon after its start, the owner waits first, so that a lasting fault does not exceed the
  # supervisor's restart intensity.
  #
  # Trap: a killed runner ends at once, but its call continues to serve. The next runner's call returns
  # `:running`, and this process retries.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Gateway, Native}
  alias ExServiceMeshRouter.Gateway.Event

  @pause 1_000
  @retry_after 200
  # The data plane ends the drain itself; this is the time for its call to return.
  @margin 5_000

  def child_spec({config, index}) do
    %{
      id: {__MODULE__, index},
      start: {__MODULE__, :start_link, [{config, index}]},
      shutdown: shutdown(config)
    }
  end

  @doc "Returns how long a supervisor must wait for workers to drain."
  def shutdown(%{timeouts: %{drain: :infinity}}), do: :infinity
  def shutdown(%{timeouts: %{drain: drain}}), do: drain + @margin

  def start_link({config, index}), do: GenServer.start_link(__MODULE__, {config, index})

  @impl true
  def init({config, index}) do
    Process.flag(:trap_exit, true)
    Event.now([:worker, :start], %{gateway: config.name, worker: index})
    started = System.monotonic_time()
    gateway = Gateway.ref(config.name)
    {:ok, run(%{config: config, gateway: gateway, index: index, started: started})}
  end

  defp run(%{gateway: gateway, index: index} = state) do
    name = state.config.name

    runner =
      spawn_link(fn ->
        label({:gateway_worker_in_a_nif, name, index})
        exit({:returned, call(gateway, index)})
      end)

    Map.merge(state, %{runner: runner, since: now()})
  end

  # Identifies the runner for a developer whose `:erlang.garbage_collect/1` of it does not return.
  # Observer and LiveDashboard show the label (OTP 27 and later) or the initial call.
  defp label(label) do
    Process.put(:"$process_label", label)
    Process.put(:"$initial_call", {__MODULE__, :runner, 1})
  end

  # The library rejects the reference after its module was purged and loaded again.
  defp call(gateway, index) do
    Native.run(gateway, index)
  rescue
    ArgumentError -> {:error, :lost}
  end

  @impl true
  def handle_info({:EXIT, runner, {:returned, result}}, %{runner: runner} = state) do
    case result do
      :ok -> handle_info(:stopped, %{state | runner: nil})
      {:error, :running} -> {:noreply, later(state, :run, @retry_after)}
      {:error, :lost} -> handle_info(:stopped, %{state | runner: nil})
      {:error, why} -> failed(why, state)
    end
  end

  def handle_info({:EXIT, runner, reason}, %{runner: runner} = state), do: failed(reason, state)
  def handle_info(:run, state), do: {:noreply, run(state)}
  def handle_info({:failed, why}, state), do: {:stop, {:shutdown, {:failed, why}}, state}

  # The gateway drains, or its reference is lost and it must be reopened. Repeated, because the
  # gateway's process may be restarting.
  def handle_info(:stopped, state) do
    Gateway.stopped(state.config.name, state.index)
    {:noreply, later(state, :stopped, @retry_after)}
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp failed(why, state) do
    Logger.error("gateway worker #{state.index} failed and restarts: #{describe(why)}")
    ended(:exception, state, %{reason: why})

    if now() - state.since < @pause,
      do: {:noreply, later(state, {:failed, why}, @pause)},
      else: {:stop, {:shutdown, {:failed, why}}, state}
  end

  defp ended(how, state, metadata) do
    metadata = Map.merge(metadata, %{gateway: state.config.name, worker: state.index})
    duration = System.monotonic_time() - state.started
    Event.execute([:worker, how], %{duration: duration}, metadata)
  end

  defp later(state, message, time) do
    Process.send_after(self(), message, time)
    %{state | runner: nil}
  end

  # Only a shutdown by the supervisor stops the gateway; a worker that fails ends alone.
  @impl true
  def terminate(:shutdown, state) do
    # A lost data plane cannot be stopped from here, and its call does not return.
    stopped = Gateway.stop(state.config.name, state.gateway, state.config.timeouts.drain)
    if stopped == :ok, do: await_return(state)
    ended(:stop, state, %{})
  end

  def terminate(_reason, _state), do: :ok

  defp await_return(%{runner: nil} = state), do: state |> run() |> await_return()

  defp await_return(%{runner: runner} = state) do
    receive do
      # The call of a killed runner is still draining.
      {:EXIT, ^runner, {:returned, {:error, :running}}} ->
        Process.sleep(20)
        await_return(%{state | runner: nil})

      {:EXIT, ^runner, _reason} ->
        :ok
    end
  end

  defp describe(why) when is_binary(why), do: why
  defp describe(why), do: Exception.format_exit(why)

  defp now, do: System.monotonic_time(:millisecond)
end
