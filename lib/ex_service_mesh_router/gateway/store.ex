defmodule ExServiceMeshRouter.Gateway.Store do
  @moduledoc false
  # Keeps state that must survive a crash of its process: the reference of the data plane, the
  # services, the endpoints with a private listener. The gateway's supervisor owns the ETS table, so
  # that the table ends with the gateway.

  @doc "Creates the table. The calling process owns it."
  def new(name) do
    :ets.new(table(name), [:named_table, :public, :set, read_concurrency: true])
    :ok
  end

  @doc "Returns whether a gateway of this name runs."
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

  @doc "Returns `%{key => value}` of all entries with a key `{kind, key}`."
  def all(name, kind) do
    table(name) |> :ets.match({{kind, :"$1"}, :"$2"}) |> Map.new(&List.to_tuple/1)
  rescue
    ArgumentError -> not_running(name)
  end

  # Exits as a call to a missing process does.
  defp not_running(name), do: exit({:noproc, {__MODULE__, name}})

  defp table(name), do: Module.concat(name, Store)
end
