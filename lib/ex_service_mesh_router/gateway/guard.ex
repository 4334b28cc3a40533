defmodule ExServiceMeshRouter.Gateway.Guard do
  @moduledoc false
  # Restarts one process of the control plane without limit. A supervisor gives up after some restarts
  # and ends all its children; a failure of the index, for example, must not end the data plane. A
  # process that fails soon after its start is restarted after a pause, which doubles up to one second.
  #
  # If the first start fails, the guard fails too, and the gateway does not start.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.Gateway.Store

  # A process that ends within this time failed at its start.
  @settled 1_000
  @first_pause 10
  @longest_pause 1_000
  # How long the child of a killed guard may take to end.
  @orphan 5_000

  @doc "Returns the specification of a guard for `child`, of the gateway `name`."
  def child_spec({name, child}) do
    spec = Supervisor.child_spec(child, [])
    %{id: spec.id, start: {__MODULE__, :start_link, [name, spec]}, shutdown: :infinity}
  end

  def start_link(name, spec), do: GenServer.start_link(__MODULE__, {name, spec})

  @impl true
  def init({name, spec}) do
    Process.flag(:trap_exit, true)
    state = %{name: name, spec: spec, child: nil, started: 0, pause: @first_pause}

    case Store.get(name, key(spec)) do
      nil -> first_start(state)
      # The previous guard was killed. Its child is ending and still has its name or its port.
      orphan -> {:ok, state, {:continue, {:after_end, orphan}}}
    end
  end

  defp first_start(state) do
    case start_child(state.spec) do
      {:ok, pid} -> {:ok, started(state, pid)}
      {:error, reason} -> {:stop, reason}
    end
  end

  @impl true
  def handle_continue({:after_end, orphan}, state) do
    await_end(orphan, @orphan)
    {:noreply, start(state)}
  end

  @impl true
  def handle_info({:EXIT, child, reason}, %{child: child} = state) do
    Logger.warning(
      "the gateway restarts #{inspect(state.spec.id)}, which exited: " <>
        "#{Exception.format_exit(reason)}. Requests are not affected."
    )

    if now() - state.started >= @settled,
      do: {:noreply, start(%{state | child: nil, pause: @first_pause})},
      else: {:noreply, later(%{state | child: nil})}
  end

  def handle_info(:start, state), do: {:noreply, start(state)}
  def handle_info(_other, state), do: {:noreply, state}

  defp start(state) do
    case start_child(state.spec) do
      {:ok, pid} ->
        started(state, pid)

      {:error, reason} ->
        Logger.error(
          "the gateway cannot restart #{inspect(state.spec.id)} and retries in " <>
            "#{state.pause} ms: #{Exception.format_exit(reason)}"
        )

        later(state)
    end
  end

  defp started(state, pid) do
    Store.put(state.name, key(state.spec), pid)
    %{state | child: pid, started: now()}
  end

  defp later(state) do
    Process.send_after(self(), :start, state.pause)
    %{state | pause: min(state.pause * 2, @longest_pause)}
  end

  defp start_child(%{start: {module, function, arguments}}) do
    case apply(module, function, arguments) do
      {:ok, pid} -> {:ok, pid}
      {:error, reason} -> {:error, reason}
    end
  catch
    kind, reason -> {:error, {kind, reason}}
  end

  @impl true
  def terminate(_reason, %{child: nil}), do: :ok

  def terminate(_reason, %{child: child, spec: spec}) do
    default = if spec[:type] == :supervisor, do: :infinity, else: 5_000
    Process.exit(child, :shutdown)
    await_end(child, Map.get(spec, :shutdown, default))
  end

  @doc "Waits until the process has ended; kills it after `timeout` milliseconds."
  def await_end(pid, timeout) do
    monitor = Process.monitor(pid)

    receive do
      {:DOWN, ^monitor, :process, _, _} -> :ok
    after
      timeout ->
        Process.exit(pid, :kill)
        receive do: ({:DOWN, ^monitor, :process, _, _} -> :ok)
    end
  end

  defp key(spec), do: {:guarded, spec.id}
  defp now, do: System.monotonic_time(:millisecond)
end
