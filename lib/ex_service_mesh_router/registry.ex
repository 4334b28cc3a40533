defmodule ExServiceMeshRouter.Registry do
  @moduledoc false
  # Keeps all services and builds the routing table of the data plane from them. Changes that arrive
  # together become one table, and a call returns when the data plane routes by it.
  #
  # The endpoints of other nodes come from the mesh as peers and are merged with the own services, see
  # Replicas. The registry tells the mesh which own endpoints it may announce.
  #
  # The gateway's Store also has the services: a restarted registry starts with the services that the
  # data plane serves, including those that were put at run time.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Gateway, Native}
  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Endpoint.DevNames
  alias ExServiceMeshRouter.Gateway.{Reporter, Store}
  alias ExServiceMeshRouter.Registry.{Changes, IndexRow, Replicas, Service, Table}

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

  @doc "Sets the peers, see Replicas."
  def put_peers(name, peers), do: call(name, {:put_peers, peers})

  @doc "Returns the peers of the last put_peers/2."
  def peers(name), do: Store.get(name, :peers, [])

  @doc "Returns the endpoints of this node that listen, with the configured hosts that lead to them."
  def announced(name), do: Store.get(name, :announced, [])

  @doc "Returns all services, sorted by name, with the hosts that are routed to them."
  def all(name) do
    {services, table, _default} = claims(name)
    for service <- services, do: Table.with_hosts(table, service)
  end

  @doc "Returns the services of this node, without upstreams on other nodes."
  def own(name), do: call(name, :own)

  @doc "Returns all services with the hosts that they claim, the table, and the configured default."
  def claims(name), do: call(name, :claims)

  @doc "Returns the latest changes as `{time, line}`, the last one first."
  def history(name), do: call(name, :history)

  @doc "Returns the service that the table has for this host, or `nil`."
  def find(name, host) do
    {services, table, _default} = claims(name)
    key = Table.key(table, host)
    service = Enum.find(services, &(&1.key == key))
    service && Table.with_hosts(table, service)
  end

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
      # the services of this node, and what other nodes have
      services: %{},
      peers: Store.get(config.name, :peers, []),
      # both, as in the table
      merged: %{},
      addresses: Store.get(config.name, :addresses, %{}),
      index: Store.get(config.name, :index),
      history: Store.get(config.name, :history, []),
      table: Table.empty(),
      # The services, peers and addresses of the last table that the data plane accepted.
      served: {%{}, [], %{}},
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
    state = merge(%{state | services: services, flushing: false})
    table = Table.build(state.merged, state.addresses, state.shared)
    push(table, state)
    %{state | served: served(state), table: table}
  end

  @impl true
  def handle_call({:put, services}, from, state) do
    {:noreply, later(%{state | services: Enum.reduce(services, state.services, &add/2)}, from)}
  end

  def handle_call({:put_peers, peers}, from, state),
    do: {:noreply, later(%{state | peers: peers}, from)}

  def handle_call(:own, _from, state) do
    state = flush(state)
    {:reply, Map.values(state.services), state}
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
    services = state.merged |> Map.values() |> Enum.sort_by(& &1.name)
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
    state = merge(state)
    table = Table.build(state.merged, state.addresses, state.shared)
    keep(state.services, state)
    Store.put(state.name, :peers, state.peers)
    result = if table.rows == state.table.rows, do: :ok, else: push(table, state)
    state = pushed(result, table, state)
    Enum.each(state.waiting, &GenServer.reply(&1, result))
    %{state | waiting: [], flushing: false}
  end

  defp pushed(:ok, table, state) do
    history = state |> publish(table) |> remember(state.history)
    if history != state.history, do: Store.put(state.name, :history, history)
    Store.put(state.name, :addresses, state.addresses)
    announce(table, state)
    %{state | table: table, history: history, served: served(state)}
  end

  # Returns to the last accepted table: a rejected change must not block later ones.
  defp pushed({:error, _}, _table, %{served: {services, peers, addresses}} = state) do
    keep(services, %{state | served: served(state)})
    Store.put(state.name, :peers, peers)
    merge(%{state | services: services, peers: peers, addresses: addresses})
  end

  defp merge(state), do: %{state | merged: Replicas.merge(state.services, state.peers)}
  defp served(state), do: {state.services, state.peers, state.addresses}

  # The mesh reads the Store again when it is told, and every few seconds.
  defp announce(table, state) do
    announced =
      for %{source: :endpoint, upstreams: [_ | _]} = service <- Map.values(state.services),
          hosts = Enum.filter(service.hosts, &(&1 in Map.get(table.routed, service.key, []))),
          hosts != [],
          do: %{service | hosts: hosts, derived: []}

    if announced != announced(state.name) do
      Store.put(state.name, :announced, announced)
      announcer = Process.whereis(announcer(state.name))
      if announcer, do: send(announcer, :announced)
    end
  end

  @doc "Returns the name of the process that is told of changes of announced/1."
  def announcer(name), do: Module.concat(name, Member)

  # Writes only changed services.
  defp keep(services, %{served: {before, _peers, _addresses}, name: name}) do
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
