defmodule ExServiceMeshRouter.Handover.Offer do
  @moduledoc false
  # Listens on the socket of the handover: on PATH while this gateway has the port, on PATH.next while it
  # waits to take over. Each connection is a Session; this process decides which one may take the sockets.
  #
  # The file at PATH decides which gateway has the port: the new one moves its socket there when it accepts.
  # A gateway that finds the socket of another one there has been replaced, even if it heard nothing
  # of it, because it hung or its process was restarted.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Gateway, Native}
  alias ExServiceMeshRouter.Handover.{Calls, Drain, SocketFile, Session, State}

  @tick 1_000
  # Beyond, clients wait in the queue of the socket.
  @max_sessions 16
  @line_every 60_000

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: Calls.offer(config.name))

  @impl true
  def init(config) do
    Process.flag(:trap_exit, true)

    state = %{
      config: config,
      name: config.name,
      place: nil,
      # The process that waits for the next connection, and how many have one.
      acceptor: nil,
      sessions: 0,
      # The session of a handover, and who asks for it.
      giving: nil,
      asks: nil,
      # When the last line about a refusal was written.
      line: nil
    }

    unless State.taking?(config.name) do
      unless State.get(config.name, :since),
        do: State.put(config.name, :since, DateTime.utc_now())

      # A process before this one may have ended while it was handing over. Otherwise the queue is left
      # alone: with sockets of systemd, the gateway may not accept yet.
      if State.get(config.name, :handing_over), do: take_back(state)
    end

    Process.send_after(self(), :tick, @tick)
    {:ok, if(State.taking?(config.name), do: listen(state), else: check(state))}
  end

  defp take_back(%{name: name}) do
    if Gateway.listens?(name), do: Native.accept(Gateway.ref(name), true)
    State.delete(name, :handing_over)
  end

  @impl true
  def handle_call(:promote, _from, state), do: {:reply, :ok, promoted(state)}

  def handle_call({:begin, {peer, _} = asks}, {session, _tag}, state) do
    state = forget_earlier(state, asks)

    case refusal(state) do
      nil ->
        State.put(state.name, :handing_over, peer)
        {:reply, :ok, %{state | giving: session, asks: asks}}

      why ->
        {:reply, {:error, why}, state}
    end
  end

  def handle_call(:keep, _from, state) do
    take_back(state)
    state = check(%{state | giving: nil})
    {:reply, not State.handed_over?(state.name), state}
  end

  def handle_call({:replaced, peer}, _from, state),
    do: {:reply, :ok, leave(%{state | giving: nil}, peer)}

  # The session of its lost connection may not have ended yet.
  defp forget_earlier(%{giving: session, asks: asks} = state, asks) when session != nil do
    Process.exit(session, :kill)
    take_back(state)
    %{state | giving: nil}
  end

  defp forget_earlier(state, _asks), do: state

  defp refusal(%{name: name} = state) do
    cond do
      peer = State.get(name, :handed_over) -> "process #{peer} has taken it over already"
      State.taking?(name) -> "it is taking over itself, from process #{State.get(name, :peer)}"
      state.giving -> "process #{State.get(name, :handing_over)} is taking it over already"
      true -> nil
    end
  end

  @impl true
  def handle_info(:tick, state) do
    Process.send_after(self(), :tick, @tick)
    state = check(state)
    Drain.stop_if_drained(state.config)
    {:noreply, state}
  end

  def handle_info({:accepted, session}, %{acceptor: session} = state),
    do: {:noreply, accept(%{state | acceptor: nil, sessions: state.sessions + 1})}

  def handle_info({:stranger, peer}, state), do: {:noreply, stranger(state, peer)}

  # Its socket was closed, or it was killed.
  def handle_info({:EXIT, acceptor, _reason}, %{acceptor: acceptor} = state),
    do: {:noreply, accept(%{state | acceptor: nil})}

  def handle_info({:EXIT, session, _reason}, state) do
    state = accept(%{state | sessions: state.sessions - 1})
    if session == state.giving, do: take_back(state)
    {:noreply, if(session == state.giving, do: check(%{state | giving: nil}), else: state)}
  end

  def handle_info(_other, state), do: {:noreply, state}

  # At most one line a minute: a client can connect as often as it likes.
  defp stranger(state, peer) do
    if state.line == nil or now() - state.line >= @line_every do
      Logger.warning(
        "gateway handover: refused process #{peer.pid} of another user (#{peer.uid}) on " <>
          state.config.handover.path
      )

      %{state | line: now()}
    else
      state
    end
  end

  defp listen(state) do
    cond do
      State.handed_over?(state.name) -> state
      State.taking?(state.name) -> listen(state, SocketFile.open_next(state.config.handover.path))
      true -> listen(state, SocketFile.open(state.config.handover.path))
    end
  end

  defp listen(state, {:ok, place}), do: accept(%{state | place: place})

  # Retried with each tick.
  defp listen(%{line: nil} = state, {:error, why}) do
    Logger.error("gateway handover: no other process can take the port over: #{why}")
    %{state | line: now()}
  end

  defp listen(state, {:error, _why}), do: state

  defp accept(%{place: %{listener: listener}, acceptor: nil, sessions: sessions} = state)
       when sessions < @max_sessions,
       do: %{state | acceptor: Session.start_link(self(), listener, state.config)}

  defp accept(state), do: state

  defp promoted(%{place: nil} = state), do: listen(state)
  defp promoted(state), do: %{state | place: SocketFile.promote(state.place)}

  # See the head of this file.
  defp check(%{name: name, config: %{handover: %{path: path}}} = state) do
    cond do
      State.handed_over?(name) or State.taking?(name) or state.giving != nil ->
        state

      state.place != nil and state.place.path != path ->
        promoted(state)

      true ->
        owned(state, SocketFile.owner(state.place, path))
    end
  end

  defp owned(state, :mine), do: state
  defp owned(state, {:other, successor}), do: leave(state, successor)

  defp owned(state, :none) do
    SocketFile.close(state.place)
    listen(%{state | place: nil})
  end

  defp leave(state, peer) do
    unless State.handed_over?(state.name), do: Drain.begin(state.config, peer)
    SocketFile.close(state.place)
    %{state | place: nil}
  end

  @impl true
  def terminate(_reason, state), do: SocketFile.remove(state.place)

  defp now, do: System.monotonic_time(:millisecond)
end
