defmodule ExServiceMeshRouter.Registry do
  @moduledoc false
  # Keeps all services and builds the routing table of the data plane from them. Changes that arrive
  # together become one table, and a call returns when the data plane routes by it.
  #
  # The gateway's Store also has the services: a restarted registry starts with the services that the
  # data plane serves, including those that were put at run time.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Gateway, Native}
  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Endpoint.DevNames
  alias ExServiceMeshRouter.Gateway.{Reporter, Store}
  alias ExServiceMeshRouter.Registry.{Changes, IndexRow, Service, Table}

  # The number of changes that the index shows.
  @history 50

  # A call to a restarting registry is retried, after this many milliseconds each time.
  @retry_after 10
  @retries 500

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  @doc "Adds a service, or replaces the one with the same key."
  def put(name, %Service{} = service), do: put_all(name, [service])

  @doc "Adds or replaces several services in one routing table."
  def put_all(name, services),
    do: call(name, {:put, services})

  @doc "Removes a service. Returns `:error` if there is none."
  def delete(name, key), do: call(name, {:delete, key})

  @doc "Sets the upstream of the index, which is not a service; `nil` for no index."
  def put_index(name, upstream), do: call(name, {:put_index, upstream})

  @doc "Sets the addresses of named upstreams, as `%{name => [ip]}`."
  def put_addresses(name, addresses), do: call(name, {:addresses, addresses})

  @doc "Returns all services, sorted by name, with the hosts that are routed to them."
  def all(name) do
    {services, table, _default} = claims(name)
    hosts = Map.new(table.rows, &{&1.name, &1.hosts})
    for service <- services, do: %{service | hosts: Map.get(hosts, service.name, []), derived: []}
  end

  @doc "Returns all services with the hosts that they claim, the table, and the configured default."
  def claims(name), do: call(name, :claims)

  @doc "Returns the latest changes as `{time, line}`, the last one first."
  def history(name), do: call(name, :history)

  @doc "Returns the service of that name, or `nil`."
  def find(name, service_name), do: name |> all() |> Enum.find(&(&1.name == service_name))

  # Waits for a restarting registry. All requests are idempotent.
  defp call(name, request, retries \\ @retries) do
    GenServer.call(process_name(name), request, :infinity)
  catch
    :exit, reason ->
      if retries > 0 and Store.running?(name) do
        Process.sleep(@retry_after)
        call(name, request, retries - 1)
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
      # The services and addresses of the last table that the data plane accepted.
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

  # Pushes, because the previous process may have crashed between the Store and the push.
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

  # Flushes first: a service must be routed before callers see it.
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

  # Behind all messages in the mailbox, so that a hundred changes become one table.
  defp later(state, from) do
    unless state.flushing, do: send(self(), :flush)
    %{state | flushing: true, waiting: [from | state.waiting]}
  end

  defp flush(%{flushing: false} = state), do: state

  # Stores before it pushes: the data plane must not serve services that a restarted registry lacks.
  defp flush(state) do
    table = Table.build(state.services, state.addresses, state.shared)
    keep(state.services, state)
    result = if table.rows == state.table.rows, do: :ok, else: push(table, state)
    state = pushed(result, table, state)
    Enum.each(state.waiting, &GenServer.reply(&1, result))
    %{state | waiting: [], flushing: false}
  end

  defp pushed(:ok, table, state) do
    history = state |> publish(table) |> remember(state.history)
    if history != state.history, do: Store.put(state.name, :history, history)
    Store.put(state.name, :addresses, state.addresses)
    %{state | table: table, history: history, served: {state.services, state.addresses}}
  end

  # Returns to the last accepted table: a rejected change must not block later ones.
  defp pushed({:error, _}, _table, %{served: {services, addresses}} = state) do
    keep(services, %{state | served: {state.services, state.addresses}})
    %{state | services: services, addresses: addresses}
  end

  # Writes only changed services.
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

  # Returns the lines for the history.
  defp publish(state, table) do
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
      Logger.error("gateway keeps its old routes, the data plane rejects the new ones: #{text}")
      {:error, text}
    end
  end
end
