defmodule ExServiceMeshRouter.Gateway.Store do
  @moduledoc false
  # Keeps what must survive a crash of the process that knows it: the data plane's reference, the
  # services, the endpoints with a private listener. It is an ETS table that the gateway's supervisor
  # owns, so that it ends with the gateway and with no other process.

  @doc "Makes the table. The calling process owns it."
  def new(name) do
    :ets.new(table(name), [:named_table, :public, :set, read_concurrency: true])
    :ok
  end

  @doc "Whether a gateway of this name runs."
  def running?(name), do: :ets.whereis(table(name)) != :undefined

  def put(name, key, value) do
    table(name) |> :ets.insert({key, value})
    :ok
  rescue
    ArgumentError -> not_running(name)
  end

  def get(name, key, default \\ nil) do
    case table(name) |> :ets.lookup(key) do
      [{^key, value}] -> value
      [] -> default
    end
  rescue
    ArgumentError -> not_running(name)
  end

  def delete(name, key) do
    table(name) |> :ets.delete(key)
    :ok
  rescue
    ArgumentError -> not_running(name)
  end

  @doc "`%{key => value}` of everything that was put under `{kind, key}`."
  def all(name, kind) do
    table(name) |> :ets.match({{kind, :"$1"}, :"$2"}) |> Map.new(&List.to_tuple/1)
  rescue
    ArgumentError -> not_running(name)
  end

  # As a call to a process that does not run.
  defp not_running(name), do: exit({:noproc, {__MODULE__, name}})

  defp table(name), do: Module.concat(name, Store)
end
