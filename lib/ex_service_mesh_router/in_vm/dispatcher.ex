defmodule ExServiceMeshRouter.InVm.Dispatcher do
  @moduledoc false
  # Receives the requests that the data plane has for an endpoint, in batches, and starts a process for
  # each. It keeps nothing of a request.
  #
  # When it stops, it stops at once: the data plane then uses the endpoint's socket, and Drainer waits for
  # the requests that have begun.

  use GenServer

  alias ExServiceMeshRouter.InVm.Request

  @idle 1_000

  def start_link(server), do: GenServer.start_link(__MODULE__, server)

  @impl true
  def init(server) do
    Process.flag(:trap_exit, true)
    # A batch that waits must not be copied by each garbage collection.
    Process.flag(:message_queue_data, :off_heap)
    :ets.insert(server.dispatchers, {self()})
    more = %{ancestors: [self() | Process.get(:"$ancestors", [])]}
    {:ok, server |> Map.delete(:dispatchers) |> Map.merge(more)}
  end

  @impl true
  def handle_info({:mesh_calls, calls}, server) do
    start(calls, server)
    {:noreply, server, @idle}
  end

  # A call whose process ended before it took it is known to be lost once nothing refers to it.
  def handle_info(:timeout, server), do: {:noreply, server, :hibernate}
  def handle_info(_other, server), do: {:noreply, server, @idle}

  @impl true
  def terminate(_reason, server) do
    receive do
      {:mesh_calls, calls} ->
        start(calls, server)
        terminate(:again, server)
    after
      0 -> :ok
    end
  end

  defp start(calls, server), do: Enum.each(calls, &Request.start(&1, server))
end
