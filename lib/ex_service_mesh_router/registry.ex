defmodule ExServiceMeshRouter.Registry do
  @moduledoc false
  # The registry: all services, and from them the one table that the data plane has. Changes that
  # arrive together go out together, and a call returns when the data plane routes by it.
  #
  # The services are kept in the gateway's Store as well: a restarted registry begins with the services
  # that the data plane serves, including those that were put at run time.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Gateway, Native}
  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Endpoint.DevNames
  alias ExServiceMeshRouter.Gateway.{Reporter, Store}
  alias ExServiceMeshRouter.Registry.{Changes, IndexRow, Service, Table}

  # Changes that are remembered, for those who look later.
  @history 50

  # A call waits for a restarting registry: so many times, so many milliseconds.
  @look_again 10
  @looks 500

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  @doc "Adds a service, or replaces the one with the same key."
  def put(name, %Service{} = service), do: put_all(name, [service])

  @doc "The same with several, all of which are routed at the same moment."
  def put_all(name, services),
    do: call(name, {:put, services})

  @doc "Removes a service. `:error` if there is none."
  def delete(name, key), do: call(name, {:delete, key})

  @doc "Tells where the index listens, or with `nil` that there is none. It is no service."
  def put_index(name, upstream), do: call(name, {:put_index, upstream})

  @doc "Tells where named upstreams are: each name with its addresses."
  def put_addresses(name, addresses), do: call(name, {:addresses, addresses})

  @doc "All services, sorted by name, with the hosts that they have got of those that they claim."
  def all(name) do
    {services, table, _default} = claims(name)
    hosts = Map.new(table.rows, &{&1.name, &1.hosts})
    for service <- services, do: %{service | hosts: Map.get(hosts, service.name, []), derived: []}
  end

  @doc "All services as they were put, the table made of them, and the configured default."
  def claims(name), do: call(name, :claims)

  @doc "The latest changes, the last one first: `{time, line}`."
  def history(name), do: call(name, :history)

  @doc "The service of that name, or `nil`."
  def find(name, service_name), do: name |> all() |> Enum.find(&(&1.name == service_name))

  # Waits for a registry that is being restarted. All requests can be repeated without harm.
  defp call(name, request, looks \\ @looks) do
    GenServer.call(process_name(name), request, :infinity)
  catch
    :exit, reason ->
      if looks > 0 and Store.running?(name) do
        Process.sleep(@look_again)
        call(name, request, looks - 1)
      else
        exit(reason)
      end
  end

  defp process_name(name), do: Module.concat(name, Registry)

  @impl true
  def init(config) do
    state = %{
      name: config.name,
      gateway: Gateway.ref(config.name),
      default: config.default,
      shared: DevNames.shared(config.dev_domain),
      services: %{},
      addresses: Store.get(config.name, :addresses, %{}),
      index: Store.get(config.name, :index),
      history: Store.get(config.name, :history, []),
      table: Table.empty(),
      # The services and addresses of the last table that the data plane has accepted.
      served: {%{}, %{}},
      waiting: [],
      flushing: true
    }

    if Store.get(config.name, :registry),
      do: {:ok, restored(state)},
      else: {:ok, flush(configured(state, config))}
  end

  defp configured(state, config) do
    services =
      Map.new(config.services, fn {host, upstreams} ->
        service = Service.static(host, upstreams, :config)
        {service.key, %{service | since: DateTime.utc_now()}}
      end)

    Store.put(config.name, :registry, true)
    keep(services, state)
    %{state | services: services}
  end

  # Pushes, because the previous process may have kept a change that it did not push any more.
  defp restored(state) do
    services = Store.all(state.name, :service)
    table = Table.build(services, state.addresses, state.shared)
    push(table, state)
    served = {services, state.addresses}
    %{state | services: services, served: served, table: table, flushing: false}
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
    state = flush(%{state | index: upstream})
    Store.put(state.name, :index, state.index)
    {:reply, push(state.table, state), state}
  end

  def handle_call({:addresses, addresses}, from, state),
    do: {:noreply, later(%{state | addresses: Map.merge(state.addresses, addresses)}, from)}

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
    %{state | flushing: true, waiting: [from | state.waiting]}
  end

  defp flush(%{flushing: false} = state), do: state

  # Keeps before it pushes: the data plane must not serve more than a restarted registry would know.
  defp flush(state) do
    table = Table.build(state.services, state.addresses, state.shared)
    keep(state.services, state)
    result = if table.rows == state.table.rows, do: :ok, else: push(table, state)
    state = pushed(result, table, state)
    Enum.each(state.waiting, &GenServer.reply(&1, result))
    %{state | waiting: [], flushing: false}
  end

  defp pushed(:ok, table, state) do
    history = state |> tell(table) |> remember(state.history)
    if history != state.history, do: Store.put(state.name, :history, history)
    Store.put(state.name, :addresses, state.addresses)
    %{state | table: table, history: history, served: {state.services, state.addresses}}
  end

  # Goes back to the last good table: a refused change must not block all later ones.
  defp pushed({:error, _}, _table, %{served: {services, addresses}} = state) do
    keep(services, %{state | served: {state.services, state.addresses}})
    %{state | services: services, addresses: addresses}
  end

  # Writes only what has changed.
  defp keep(services, %{served: {before, _addresses}, name: name}) do
    for {key, service} <- services,
        before[key] != service,
        do: Store.put(name, {:service, key}, service)

    for {key, _} <- before, not is_map_key(services, key), do: Store.delete(name, {:service, key})
  end

  defp remember([], history), do: history

  defp remember(lines, history) do
    now = DateTime.utc_now()
    lines |> Enum.map(&{now, &1}) |> Enum.reverse(history) |> Enum.take(@history)
  end

  # Returns what is to be remembered of it.
  defp tell(state, table) do
    Reporter.routes(state.name, Changes.events(state.table, table))
    Changes.log(state.table, table)
  end

  defp push(table, state) do
    rows = table.rows ++ IndexRow.row(state.index, &is_map_key(table.hosts, &1))

    default =
      cond do
        Table.routed?(table, state.default) -> state.default
        state.index -> IndexRow.anchor()
        true -> nil
      end

    rows = for row <- rows, do: %{row | upstreams: Enum.map(row.upstreams, &Upstream.to_native/1)}

    with {:error, text} <- Native.put_routes(state.gateway, rows, default) do
      Logger.error("gateway keeps its old routes, the new ones are refused: #{text}")
      {:error, text}
    end
  end
end
