defmodule ExServiceMeshRouter.Handover.Takeover do
  @moduledoc false
  # The moment of a handover, on the side of the new gateway, and what comes after it. The port accepts no
  # connection from `pause` to Native.accept/2; the kernel's queue keeps them. So nothing else is done in between.

  alias ExServiceMeshRouter.{Gateway, Native}
  alias ExServiceMeshRouter.Handover.{Calls, Services, State, Events, Wire}

  # The previous gateway stops accepting within a second.
  @answer 5_000

  @doc """
  Takes the port over: `{:ok, state}`, `:lost` if the connection was, or `:stopping` if this gateway drains.
  """
  def run(state) do
    Process.flag(:priority, :high)
    began = System.monotonic_time()

    with {:ok, state} <- pause(state),
         false <- Gateway.draining?(state.name) do
      # Before it accepts: after a crash in between, `resume` goes on.
      State.put(state.name, :phase, :serving)
      Native.accept(Gateway.ref(state.name), true)
      paused = System.monotonic_time() - began
      Process.flag(:priority, :normal)
      serve(state)
      Events.taken(state, paused)
      if state.taken, do: Services.compare(state.name, state.taken.peer, state.taken.services)
      {:ok, state}
    else
      true -> :stopping
      :lost -> :lost
    end
  end

  defp pause(%{taken: nil} = state), do: {:ok, state}

  defp pause(%{taken: %{connection: connection}} = state) do
    with :ok <- Wire.send(connection, "pause"),
         {:ok, %{"type" => "paused"} = message} <- Wire.recv(connection, @answer) do
      reserve(state, message)
      {:ok, state}
    else
      # If it ever goes on, it sees at the path that this one has taken over.
      {:error, :timeout} ->
        Events.previous_hangs(state)
        :socket.close(connection)
        {:ok, %{state | taken: nil}}

      _lost ->
        :lost
    end
  end

  defp serve(state) do
    State.put(state.name, :since, DateTime.utc_now())
    Calls.promote(state.name)
    if state.taken, do: Wire.send(state.taken.connection, "serving")
  end

  @doc "Counts the connections of the draining gateway towards the limits of this one, until they have ended."
  def follow(%{taken: nil} = state), do: forget(state)

  def follow(state) do
    case Wire.recv(state.taken.connection, :infinity) do
      {:ok, message} ->
        reserve(state, message)
        follow(state)

      {:error, _closed} ->
        Events.previous_drained(state)
        forget(state)
    end
  end

  @doc "Goes on after a crash of the process that took over."
  def resume(state) do
    Native.accept(Gateway.ref(state.name), true)
    forget(state)
  end

  defp forget(state) do
    Native.reserve(Gateway.ref(state.name), 0, [])
    State.delete(state.name, :previous)
    state
  end

  defp reserve(state, %{"total" => total, "clients" => clients})
       when is_integer(total) and total >= 0 and is_list(clients) do
    clients =
      for [ip, count] when is_binary(ip) and is_integer(count) and count >= 0 <- clients,
          do: {ip, count}

    State.put(state.name, :previous, total)
    Native.reserve(Gateway.ref(state.name), total, clients)
  end

  defp reserve(_state, _other), do: :ok
end
