defmodule ExServiceMeshRouter.Routes do
  @moduledoc false
  # The registry: all services, and from them the one table that the data plane has. Changes that
  # arrive together go out together, and a call returns when the data plane routes by it.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{DevNames, Gateway, Index, Native, Reporter, Service, Upstream}
  alias ExServiceMeshRouter.Routes.{Changes, Events, Table}

  # Changes that are remembered, for those who look later.
  @history 50

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  @doc "Adds a service, or replaces the one with the same key."
  def put(name, %Service{} = service), do: put_all(name, [service])

  @doc "The same with several, all of which are routed at the same moment."
  def put_all(name, services),
    do: GenServer.call(process_name(name), {:put, services}, :infinity)

  @doc "Removes a service. `:error` if there is none."
  def delete(name, key), do: GenServer.call(process_name(name), {:delete, key}, :infinity)

  @doc "Tells where the index listens, or with `nil` that there is none. It is no service."
  def put_index(name, upstream),
    do: GenServer.call(process_name(name), {:put_index, upstream}, :infinity)

  @doc "Tells where named upstreams are: each name with its addresses."
  def put_addresses(name, addresses),
    do: GenServer.cast(process_name(name), {:addresses, addresses})

  @doc "All services, sorted by name, with the hosts that they have got of those that they claim."
  def all(name) do
    {services, table, _default} = claims(name)
    rows = Map.new(table.rows, fn {service, hosts, _upstreams} -> {service, hosts} end)
    for service <- services, do: %{service | hosts: Map.get(rows, service.name, []), derived: []}
  end

  @doc "All services as they were put, the table made of them, and the configured default."
  def claims(name), do: GenServer.call(process_name(name), :claims)

  @doc "The latest changes, the last one first: `{time, line}`."
  def history(name), do: GenServer.call(process_name(name), :history)

  @doc "The service of that name, or `nil`."
  def find(name, service_name), do: name |> all() |> Enum.find(&(&1.name == service_name))

  defp process_name(name), do: Module.concat(name, Routes)

  @impl true
  def init(config) do
    services =
      Map.new(config.services, fn {host, upstreams} ->
        service = Service.static(host, upstreams, :config)
        {service.key, %{service | since: DateTime.utc_now()}}
      end)

    state = %{
      name: config.name,
      gateway: Gateway.ref(config.name),
      default: config.default,
      shared: DevNames.shared(config.dev_domain),
      services: services,
      addresses: %{},
      index: nil,
      history: [],
      table: Table.empty(),
      waiting: [],
      flushing: true
    }

    {:ok, flush(state)}
  end

  @impl true
  def handle_call({:put, services}, from, state) do
    {:noreply, later(%{state | services: Enum.reduce(services, state.services, &add/2)}, from)}
  end

  def handle_call(:history, _from, state) do
    state = flush(state)
    {:reply, state.history, state}
  end

  def handle_call({:put_index, upstream}, _from, state) do
    state = flush(%{state | index: upstream && Upstream.to_native(upstream)})
    {:reply, push(state.table, state), state}
  end

  def handle_call({:delete, key}, from, state) do
    case Map.pop(state.services, key) do
      {nil, _services} -> {:reply, :error, state}
      {_service, services} -> {:noreply, later(%{state | services: services}, from)}
    end
  end

  # What is told is routed: whoever has seen a service may ask for it.
  def handle_call(:claims, _from, state) do
    state = flush(state)
    services = state.services |> Map.values() |> Enum.sort_by(& &1.name)
    {:reply, {services, state.table, state.default}, state}
  end

  @impl true
  def handle_cast({:addresses, addresses}, state) do
    {:noreply, later(%{state | addresses: Map.merge(state.addresses, addresses)}, nil)}
  end

  @impl true
  def handle_info(:flush, state), do: {:noreply, flush(state)}

  defp add(service, services) do
    service = %{service | since: since(services[service.key], service)}
    Map.put(services, service.key, service)
  end

  defp since(nil, _new), do: DateTime.utc_now()

  defp since(old, new),
    do: if(Service.state(old) == Service.state(new), do: old.since, else: DateTime.utc_now())

  # Behind everything that is in the mailbox now: a hundred changes are one table.
  defp later(state, from) do
    unless state.flushing, do: send(self(), :flush)
    %{state | flushing: true, waiting: if(from, do: [from | state.waiting], else: state.waiting)}
  end

  defp flush(%{flushing: false} = state), do: state

  defp flush(state) do
    table = Table.build(state.services, state.addresses, state.shared)
    result = if table.rows == state.table.rows, do: :ok, else: push(table, state)
    Enum.each(state.waiting, &GenServer.reply(&1, result))
    lines = if result == :ok, do: tell(state, table), else: []
    state = %{state | table: table, waiting: [], flushing: false}
    %{state | history: remember(lines, state.history)}
  end

  defp remember([], history), do: history

  defp remember(lines, history) do
    now = DateTime.utc_now()
    lines |> Enum.map(&{now, &1}) |> Enum.reverse(history) |> Enum.take(@history)
  end

  # Returns what is to be remembered of it.
  defp tell(state, table) do
    Reporter.routes(state.name, Events.between(state.table, table))
    Changes.log(state.table, table)
  end

  defp push(table, state) do
    rows = table.rows ++ Index.row(state.index, &is_map_key(table.hosts, &1))

    default =
      cond do
        Table.routed?(table, state.default) -> state.default
        state.index -> Index.anchor()
        true -> nil
      end

    with {:error, text} <- Native.put_routes(state.gateway, rows, default) do
      Logger.error("gateway keeps its old routes, the new ones are refused: #{text}")
      {:error, text}
    end
  end
end
