defmodule ExServiceMeshRouter.Gateway.Lock do
  @moduledoc false
  # Runs functions one at a time in this VM, in the order of the calls, also before the application
  # has started. A lock has a value, which can be read without the lock. `:global.trans/4` is not used
  # because its waiting callers sleep for longer each time.
  #
  # Each lock is a registered process, started at the first use. Its mailbox is the queue, and the
  # value is in its ETS table. A caller that takes a lock twice deadlocks.

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

  @doc "Returns the value, `nil` before the first `put/2`."
  def get(name) do
    if :ets.whereis(name) != :undefined,
      do: with([value: value] <- :ets.lookup(name, :value), do: value, else: ([] -> nil))
  end

  @doc "Sets the value. The caller must hold the lock."
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
    # OTP kills the processes of an application's group at its end; other callers may wait here.
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
