defmodule ExServiceMeshRouter.Handover.Successor do
  @moduledoc false
  # The side of the new gateway: takes the listening sockets from the running one, waits until this
  # system is ready, and takes over (Takeover). Starts before the data plane, which finds the sockets in the
  # Store.
  #
  # One process that does one thing after another. The connection is the transaction: if either side
  # closes it, nothing has happened. If the other gateway has gone then, this one takes over when it is
  # ready; if it lives, this one asks again. It does so, too, after a crash of this process.

  alias ExServiceMeshRouter.{Gateway, ListenError, Native, Readiness}
  alias ExServiceMeshRouter.Handover.{Calls, Failure, Request, State, Events, Takeover, Wire}

  @poll 50

  def child_spec(config), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [config]}}

  def start_link(config), do: :proc_lib.start_link(__MODULE__, :init, [config])

  @doc false
  def init(config) do
    Process.register(self(), Calls.successor(config.name))
    state = %{config: config, name: config.name, started: System.monotonic_time(), taken: nil}

    case State.get(config.name, :phase) do
      nil -> first(state)
      :taking -> state |> acknowledge() |> again()
      :serving -> state |> acknowledge() |> Takeover.resume() |> idle()
      :none -> state |> acknowledge() |> idle()
    end
  end

  defp acknowledge(state) do
    :proc_lib.init_ack({:ok, self()})
    state
  end

  defp first(state) do
    with nil <- Failure.recent(state.name),
         # Otherwise Gateway fails, and says why.
         true <- Native.load() == :ok,
         {:ok, taken} <- Request.take(state.config) do
      State.put(state.name, :taken, taken.native)
      State.put(state.name, :peer, taken.peer)
      State.put(state.name, :phase, :taking)
      Events.taking(state, taken.peer)
      %{state | taken: taken} |> acknowledge() |> await_ready()
    else
      %ListenError{} = error -> give_up(error)
      {:error, why} -> give_up(Failure.error(state.config, why))
      none -> state |> bind(none) |> acknowledge() |> idle()
    end
  end

  defp give_up(error), do: :proc_lib.init_ack({:error, {:shutdown, error}})

  defp bind(state, none) do
    State.put(state.name, :phase, :none)
    if none == :stale, do: Events.stale(state)
    state
  end

  # The connection was lost. Either the previous gateway has gone, or only a process of it.
  defp again(state) do
    if state.taken, do: :socket.close(state.taken.connection)

    case Request.take(state.config) do
      {:ok, taken} ->
        # The data plane has others of them already.
        Native.close_listeners(taken.native.sockets)
        await_ready(%{state | taken: taken})

      {:error, why} ->
        fail(%{state | taken: nil}, why)

      _none ->
        Events.previous_gone(state)
        await_ready(%{state | taken: nil})
    end
  end

  defp await_ready(state) do
    timeout = state.config.handover.ready_timeout
    await_ready(state, Task.async(fn -> Readiness.await(state.name, timeout) end))
  end

  defp await_ready(state, %{ref: ref} = readiness) do
    receive do
      {^ref, result} ->
        Process.demonitor(ref, [:flush])
        readiness_known(result, state)

      {:take, from} ->
        reply(from, {:error, not_ready(Readiness.missing(state.name))})
        await_ready(state, readiness)
    after
      0 ->
        case watch(state) do
          :ok ->
            await_ready(state, readiness)

          ended ->
            Task.shutdown(readiness, :brutal_kill)
            ended(ended, state)
        end
    end
  end

  # No other VM has the port, and a client may need only what is ready.
  defp readiness_known({:missing, missing}, %{taken: nil} = state) do
    Events.late(state, missing)
    take_over(state, nil)
  end

  defp readiness_known(:ok, state), do: ready(state)
  defp readiness_known(missing, state), do: fail(state, Failure.not_ready(missing, state))

  # It must have been ready for a moment.
  defp not_ready([]), do: "this gateway is not ready yet"
  defp not_ready(missing), do: "this gateway is not ready: #{Enum.join(missing, ", ")}"

  # Waits for a moment. This gateway may be told to stop, and the previous one may end.
  defp watch(state) do
    cond do
      Gateway.draining?(state.name) -> :stopping
      state.taken == nil -> Process.sleep(@poll)
      Wire.poll(state.taken.connection, @poll) == :timeout -> :ok
      true -> :lost
    end
  end

  defp ended(:lost, state), do: again(state)
  defp ended(:stopping, state), do: idle(state)

  defp ready(%{taken: nil} = state), do: take_over(state, nil)
  defp ready(%{config: %{handover: %{take: :ready}}} = state), do: take_over(state, nil)

  defp ready(state) do
    State.put(state.name, :ready, true)
    Events.ready(state)
    await_word(state)
  end

  defp await_word(state) do
    receive do
      {:take, from} -> take_over(state, from)
    after
      0 -> with :ok <- watch(state), do: await_word(state), else: (ended -> ended(ended, state))
    end
  end

  defp take_over(state, from) do
    case Takeover.run(state) do
      {:ok, state} ->
        reply(from, :ok)
        state |> Takeover.follow() |> idle()

      :lost ->
        reply(from, {:error, "the connection to the other gateway was lost; ask again"})
        again(state)

      :stopping ->
        reply(from, {:error, "this gateway stops"})
        idle(state)
    end
  end

  defp reply(nil, _result), do: :ok
  defp reply({pid, tag}, result), do: send(pid, {tag, result})

  defp fail(state, why) do
    Events.failed(state, why)
    if state.taken, do: Wire.send(state.taken.connection, "failed", %{why: why})
    Failure.stop(state.config, why)
    idle(state)
  end

  # The connection is closed, which tells the other gateway to go on.
  defp idle(%{taken: %{connection: connection}} = state) do
    :socket.close(connection)
    idle(%{state | taken: nil})
  end

  defp idle(state) do
    receive do
      {:take, from} -> reply(from, {:error, "this gateway does not take over"})
      _other -> :ok
    end

    idle(state)
  end
end
