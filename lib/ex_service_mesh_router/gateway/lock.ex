defmodule ExServiceMeshRouter.Gateway.Lock do
  @moduledoc false
  # Runs functions one at a time in this VM, first come, first served, whether the application has
  # started or not. Not `:global.trans/4`: a caller that has to wait there sleeps for longer each time.
  #
  # Each lock is a registered process, started when it is first needed. Its mailbox is the queue. A
  # caller that takes a lock twice waits for itself for ever.

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

  defp lock(name) do
    with nil <- Process.whereis(name) do
      case GenServer.start(__MODULE__, nil, name: name) do
        {:ok, lock} -> lock
        {:error, {:already_started, lock}} -> lock
      end
    end
  end

  @impl true
  def init(nil) do
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
