defmodule ExServiceMeshRouter.Gateway.Lock do
  @moduledoc false
  # Runs functions one at a time in this VM, first come, first served, whether the application has
  # started or not, and keeps a value for them, which anybody may read meanwhile. Not `:global.trans/4`: a caller that has to wait there sleeps for longer each time.
  #
  # Each lock is a registered process, started when it is first needed. Its mailbox is the queue, and
  # the value is in its ETS table. A caller that takes a lock twice waits for itself for ever.

  use GenServer

  @doc "Calls `fun` while no other process holds the lock `name`; returns what it returns."
  @spec run(atom(), function()) :: term()
  def run(name, fun) do
    lock = lock(name)
    :ok = GenServer.call(lock, :acquire, :infinity)

    try do
      fun.()
    after
      send(lock, {:release, self()})
    end
  end

  @doc "The value, `nil` before the first `put/2`."
  def get(name) do
    if :ets.whereis(name) != :undefined,
      do: with([value: value] <- :ets.lookup(name, :value), do: value, else: ([] -> nil))
  end

  @doc "Sets the value. For functions that hold the lock."
  def put(name, value) do
    :ets.insert(name, value: value)
    :ok
  end

  defp lock(name) do
    with nil <- Process.whereis(name) do
      case GenServer.start(__MODULE__, name, name: name) do
        {:ok, lock} -> lock
        {:error, {:already_started, lock}} -> lock
      end
    end
  end

  @impl true
  def init(name) do
    :ets.new(name, [:named_table, :public])
    # At the end of an application OTP kills the processes of its group; others may wait here.
    Process.group_leader(self(), Process.whereis(:init))
    {:ok, nil}
  end

  @impl true
  def handle_call(:acquire, {caller, _tag} = from, state) do
    monitor = Process.monitor(caller)
    GenServer.reply(from, :ok)

    receive do
      {:release, ^caller} -> Process.demonitor(monitor, [:flush])
      {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
    end

    {:noreply, state}
  end
end
