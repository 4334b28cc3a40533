defmodule ExServiceMeshRouter.Console.Index.Registration do
  @moduledoc false
  # The index is in the table while its server is there: from after its start to before its end, so
  # that a gateway that drains answers unknown hosts by itself.

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
    # The registry ended first, and the table with it.
    :exit, _reason -> :ok
  end
end
