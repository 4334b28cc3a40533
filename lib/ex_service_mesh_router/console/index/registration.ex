defmodule ExServiceMeshRouter.Console.Index.Registration do
  @moduledoc false
  # Adds the index to the routing table after its server has started, and removes it before the server
  # stops, so that a draining gateway answers unknown hosts itself.

  use GenServer

  alias ExServiceMeshRouter.Registry

  def start_link({name, upstream}), do: GenServer.start_link(__MODULE__, {name, upstream})

  @impl true
  def init({name, upstream}) do
    Process.flag(:trap_exit, true)
    Registry.put_index(name, upstream)
    {:ok, name}
  end

  @impl true
  def terminate(_reason, name) do
    Registry.put_index(name, nil)
  catch
    # The registry has stopped.
    :exit, _reason -> :ok
  end
end
