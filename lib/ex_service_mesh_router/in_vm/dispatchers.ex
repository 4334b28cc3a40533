defmodule ExServiceMeshRouter.InVm.Dispatchers do
  @moduledoc false
  # Supervises the dispatchers of one endpoint, one for each scheduler, and their Drainer. It is a
  # temporary child of the endpoint: its failure costs the endpoint nothing, and discovery starts it again.

  use Supervisor, restart: :temporary

  alias ExServiceMeshRouter.InVm.{Dispatcher, Drainer}

  def child_spec({endpoint, _server} = argument) do
    %{super(argument) | id: id(endpoint)}
  end

  defp id(endpoint), do: {__MODULE__, endpoint}

  def start_link({_endpoint, server}), do: Supervisor.start_link(__MODULE__, server)

  # The stop is in the reverse order, so the requests of all dispatchers have begun when the drainer looks.
  @impl true
  def init(%{start_plug: start_plug} = server) do
    dispatchers = :ets.new(__MODULE__, [:public])

    server =
      server
      |> Map.delete(:start_plug)
      |> Map.merge(%{plug: start_plug.(), dispatchers: dispatchers})

    children =
      for index <- 1..System.schedulers_online(),
          do: Supervisor.child_spec({Dispatcher, server}, id: {Dispatcher, index})

    drainer = {Drainer, {dispatchers, server.shutdown}}
    Supervisor.init([drainer | children], strategy: :one_for_one)
  end

  @doc "Returns the dispatchers of an endpoint; none if it has not been started."
  def all(endpoint) do
    for {id, supervisor, _, _} when is_pid(supervisor) <- Supervisor.which_children(endpoint),
        id == id(endpoint),
        {{Dispatcher, _index}, pid, _, _} when is_pid(pid) <-
          Supervisor.which_children(supervisor),
        do: pid
  end

  @doc "Stops the dispatchers of an endpoint."
  def stop(endpoint) do
    Supervisor.terminate_child(endpoint, id(endpoint))
    :ok
  catch
    # The endpoint has ended, and its dispatchers with it.
    :exit, _reason -> :ok
  end
end
