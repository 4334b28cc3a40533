defmodule ExServiceMeshRouter.Lock do
  @moduledoc false
  # Runs functions one at a time in this VM, with nothing started for it. Not `:global.trans/4`: a
  # process that has to wait there sleeps for longer each time, for seconds in the end.
  #
  # The lock is a registered name. A process of its own holds it, because the caller may have a name
  # already, and lets go when the caller is done or dead. A caller that takes a lock twice waits for
  # itself for ever.

  @doc "Calls `fun` while nobody else holds the lock `name`; returns what it returns."
  @spec run(atom(), (() -> result)) :: result when result: term()
  def run(name, fun) do
    caller = self()
    {holder, monitor} = spawn_monitor(fn -> hold(name, caller) end)

    receive do
      {^holder, :held} -> :ok
      {:DOWN, ^monitor, :process, _, reason} -> exit(reason)
    end

    try do
      fun.()
    after
      send(holder, :release)
      # The name is free again when this returns.
      receive do: ({:DOWN, ^monitor, :process, _, _} -> :ok)
    end
  end

  defp hold(name, caller) do
    caller_monitor = Process.monitor(caller)
    acquire(name)
    send(caller, {self(), :held})

    receive do
      :release -> :ok
      {:DOWN, ^caller_monitor, :process, _, _} -> :ok
    end
  end

  defp acquire(name) do
    Process.register(self(), name)
  rescue
    # It is taken.
    ArgumentError ->
      monitor = Process.monitor(name)
      receive do: ({:DOWN, ^monitor, :process, _, _} -> :ok)
      acquire(name)
  end
end
