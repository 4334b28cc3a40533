defmodule ExServiceMeshRouter.InVm.Drainer do
  @moduledoc false
  # Waits for the requests of an endpoint that stops, as long as its Bandit would, and kills the rest.
  #
  # Nothing counts the requests while they run. At the end they are the processes whose parent is a
  # dispatcher; `dispatchers` is the table of all that there have been.

  use GenServer

  @margin 1_000

  def child_spec({_dispatchers, timeout} = argument) do
    shutdown = if timeout == :infinity, do: :infinity, else: timeout + @margin
    %{id: __MODULE__, start: {__MODULE__, :start_link, [argument]}, shutdown: shutdown}
  end

  def start_link(argument), do: GenServer.start_link(__MODULE__, argument)

  @impl true
  def init(argument) do
    Process.flag(:trap_exit, true)
    {:ok, argument}
  end

  @impl true
  def terminate(_reason, {dispatchers, timeout}) do
    monitors = for pid <- requests(dispatchers), into: %{}, do: {Process.monitor(pid), pid}
    if timeout != :infinity, do: Process.send_after(self(), :kill, timeout)
    await(monitors)
  end

  defp requests(dispatchers) do
    for pid <- Process.list(),
        {:parent, parent} <- [Process.info(pid, :parent)],
        is_pid(parent) and :ets.member(dispatchers, parent),
        do: pid
  end

  defp await(monitors) when monitors == %{}, do: :ok

  defp await(monitors) do
    receive do
      {:DOWN, monitor, :process, _pid, _reason} ->
        await(Map.delete(monitors, monitor))

      :kill ->
        for {_monitor, pid} <- monitors, do: Process.exit(pid, :kill)
        await(monitors)
    end
  end
end
