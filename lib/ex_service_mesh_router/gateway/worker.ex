defmodule ExServiceMeshRouter.Gateway.Worker do
  @moduledoc false
  # One data-plane thread. The thread belongs to a process that sits in one NIF call for as long as
  # the worker serves; such a process gets no message and cannot be stopped from outside. So there
  # are two processes: the runner, which makes the call, and this one, its owner, which the
  # supervisor knows, which tells the data plane to stop and waits for the drain.
  #
  # When the call returns without having been told to, the owner exits with the reason and its
  # supervisor starts another one. A call that fails soon after its start is given up only after a
  # pause, so that a lasting fault costs log lines and not the supervision tree.
  #
  # A runner that is killed ends at once, its call does not: it serves on. The next runner is then
  # told `:running`, and this process looks again from time to time.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Gateway, Native}
  alias ExServiceMeshRouter.Gateway.Event

  @pause 1_000
  @look_again 200
  # The data plane itself ends the drain; this is for its answer to arrive.
  @margin 5_000

  def child_spec({config, index}) do
    %{
      id: {__MODULE__, index},
      start: {__MODULE__, :start_link, [{config, index}]},
      shutdown: shutdown(config)
    }
  end

  @doc "How long a supervisor has to wait for workers to drain."
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

  # Who wonders why `:erlang.garbage_collect/1` of this process does not return finds out who it is:
  # Observer and LiveDashboard show the label (as of OTP 27, which has a function for the same), and
  # what is made for OTP 25 the initial call.
  defp label(label) do
    Process.put(:"$process_label", label)
    Process.put(:"$initial_call", {__MODULE__, :runner, 1})
  end

  # The reference is no argument for the library any more when its module was deleted and purged
  # and has come back since.
  defp call(gateway, index) do
    Native.run(gateway, index)
  rescue
    ArgumentError -> {:error, :lost}
  end

  @impl true
  def handle_info({:EXIT, runner, {:returned, result}}, %{runner: runner} = state) do
    case result do
      :ok -> handle_info(:stopped, %{state | runner: nil})
      {:error, :running} -> {:noreply, later(state, :run, @look_again)}
      {:error, :lost} -> handle_info(:stopped, %{state | runner: nil})
      {:error, why} -> failed(why, state)
    end
  end

  def handle_info({:EXIT, runner, reason}, %{runner: runner} = state), do: failed(reason, state)
  def handle_info(:run, state), do: {:noreply, run(state)}
  def handle_info({:failed, why}, state), do: {:stop, {:shutdown, {:failed, why}}, state}

  # Stopped or lost, and not by its supervisor: the gateway drains, or has to be opened anew.
  # Repeated, because the gateway's process may be restarting.
  def handle_info(:stopped, state) do
    Gateway.stopped(state.config.name, state.index)
    {:noreply, later(state, :stopped, @look_again)}
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp failed(why, state) do
    Logger.error("gateway worker #{state.index} failed and is restarted: #{describe(why)}")
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

  # Only the supervisor's word stops the gateway; a worker that ends by itself ends alone.
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
      # An earlier call, whose process was killed, is draining.
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
