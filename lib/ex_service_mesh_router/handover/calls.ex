defmodule ExServiceMeshRouter.Handover.Calls do
  @moduledoc false
  # The calls between the processes of a handover, which must not know each other's modules.

  alias ExServiceMeshRouter.Handover.State

  # Longer than a handover that waits for a process that hangs.
  @answer 15_000

  def offer(name), do: Module.concat(name, Offer)
  def successor(name), do: Module.concat(name, Successor)

  @doc "Moves the socket of Offer to PATH. If that process restarts at the moment, it does so at its start."
  def promote(name) do
    GenServer.call(offer(name), :promote)
  catch
    :exit, _reason -> :ok
  end

  @doc """
  Begins a handover for the calling Session: `:ok` or `{:error, why}`. It ends with the process. `asks` is the
  process id and the name of the other gateway, which may ask again after a crash of its process.
  """
  def begin(offer, asks), do: GenServer.call(offer, {:begin, asks}, :infinity)

  @doc "Tells that the other gateway has gone before it served. Returns whether this one has the port."
  def keep(offer), do: GenServer.call(offer, :keep, :infinity)

  @doc "Tells that the other gateway serves."
  def replaced(offer, peer), do: GenServer.call(offer, {:replaced, peer}, :infinity)

  @doc "Tells Successor to take over now, for `take: :manual`: `:ok` or `{:error, sentence}`."
  def take(name) do
    pid = Process.whereis(successor(name))

    if pid && State.taking?(name),
      do: ask(pid),
      else: {:error, "this gateway has the port; there is nothing to take over"}
  end

  defp ask(pid) do
    monitor = Process.monitor(pid)
    send(pid, {:take, {self(), monitor}})

    receive do
      {^monitor, result} ->
        Process.demonitor(monitor, [:flush])
        result

      {:DOWN, ^monitor, :process, _pid, _reason} ->
        {:error, "the handover was interrupted; ask for its status"}
    after
      @answer -> {:error, "there is no answer; ask for the status"}
    end
  end
end
