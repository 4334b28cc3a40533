defmodule ExServiceMeshRouter.Routes do
  @moduledoc false
  # The registry: all services, and from them the one table that the data plane has. Changes that
  # arrive together go out together, and a call returns when the data plane routes by it.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Gateway, Native, Service}
  alias ExServiceMeshRouter.Routes.{Changes, Table}

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  @doc "Adds a service, or replaces the one with the same key."
  def put(name, %Service{} = service),
    do: GenServer.call(process_name(name), {:put, service}, :infinity)

  @doc "Removes a service. `:error` if there is none."
  def delete(name, key), do: GenServer.call(process_name(name), {:delete, key}, :infinity)

  @doc "Tells where named upstreams are: each name with its addresses."
  def put_addresses(name, addresses),
    do: GenServer.cast(process_name(name), {:addresses, addresses})

  @doc "All services, sorted by name."
  def all(name), do: GenServer.call(process_name(name), :all)

  @doc "The service of that name, or `nil`."
  def find(name, service_name), do: name |> all() |> Enum.find(&(&1.name == service_name))

  defp process_name(name), do: Module.concat(name, Routes)

  @impl true
  def init(config) do
    services =
      Map.new(config.services, fn {host, upstreams} ->
        service = Service.static(host, upstreams, :config)
        {service.key, service}
      end)

    state = %{
      gateway: Gateway.ref(config.name),
      default: config.default,
      services: services,
      addresses: %{},
      table: Table.empty(),
      waiting: [],
      flushing: true
    }

    {:ok, flush(state)}
  end

  @impl true
  def handle_call({:put, service}, from, state) do
    {:noreply, later(%{state | services: Map.put(state.services, service.key, service)}, from)}
  end

  def handle_call({:delete, key}, from, state) do
    case Map.pop(state.services, key) do
      {nil, _services} -> {:reply, :error, state}
      {_service, services} -> {:noreply, later(%{state | services: services}, from)}
    end
  end

  # What is told is routed: whoever has seen a service may ask for it.
  def handle_call(:all, _from, state) do
    state = flush(state)
    {:reply, state.services |> Map.values() |> Enum.sort_by(& &1.name), state}
  end

  @impl true
  def handle_cast({:addresses, addresses}, state) do
    {:noreply, later(%{state | addresses: Map.merge(state.addresses, addresses)}, nil)}
  end

  @impl true
  def handle_info(:flush, state), do: {:noreply, flush(state)}

  # Behind everything that is in the mailbox now: a hundred changes are one table.
  defp later(state, from) do
    unless state.flushing, do: send(self(), :flush)
    %{state | flushing: true, waiting: if(from, do: [from | state.waiting], else: state.waiting)}
  end

  defp flush(%{flushing: false} = state), do: state

  defp flush(state) do
    table = Table.build(state.services, state.addresses)
    result = push(table, state)
    Enum.each(state.waiting, &GenServer.reply(&1, result))
    if result == :ok, do: Changes.log(state.table, table)
    %{state | table: table, waiting: [], flushing: false}
  end

  defp push(%{rows: same}, %{table: %{rows: same}}), do: :ok

  defp push(table, state) do
    default = if Table.routed?(table, state.default), do: state.default

    with {:error, text} <- Native.put_routes(state.gateway, table.rows, default) do
      Logger.error("gateway keeps its old routes, the new ones are refused: #{text}")
      {:error, text}
    end
  end
end
