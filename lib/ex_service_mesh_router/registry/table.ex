defmodule ExServiceMeshRouter.Registry.Table do
  @moduledoc false
  # Builds the routing table of the data plane from the services: each host goes to at most one.
  #
  # Configured hosts are assigned first, by precedence of the services, then the derived ones. An
  # ambiguous host (DevNames.shared/1) that several endpoints have goes to none of them.

  alias ExServiceMeshRouter.Config.{Host, Upstream}
  alias ExServiceMeshRouter.Registry.Service

  # rows: each service with its hosts and resolved upstreams. hosts: `%{host => {service name,
  # upstreams}}`. routed: `%{key of a service => its hosts}`. conflicts: `{host, winner, loser}`. shared:
  # `%{host => [name]}` of the endpoints that have it.
  #
  # Two rows have the same name if another node has the endpoint with another host. The row of this
  # node's endpoint comes last, because the data plane finds a service by the last row with its name.
  defstruct rows: [], hosts: %{}, routed: %{}, conflicts: MapSet.new(), shared: %{}

  def empty, do: %__MODULE__{}

  def build(services, addresses, ambiguous \\ []) do
    sorted = services |> Map.values() |> Enum.sort_by(&Service.precedence/1)
    shared = shared(sorted, ambiguous)

    own =
      for service <- sorted,
          host <- service.hosts,
          not shared?(shared, host, service),
          do: {host, service}

    written = MapSet.new(own, &elem(&1, 0))

    derived =
      for service <- sorted, host <- service.derived, host not in written, do: {host, service}

    {owners, conflicts} = Enum.reduce(own ++ derived, {%{}, MapSet.new()}, &claim/2)

    routed =
      for service <- Enum.reverse(sorted),
          hosts = Enum.filter(service.hosts ++ service.derived, &owner?(owners, &1, service)),
          hosts != [],
          do: {service, hosts}

    rows =
      for {service, hosts} <- routed,
          do: %{
            name: service.name,
            hosts: hosts,
            upstreams: Enum.flat_map(service.upstreams, &Upstream.resolve(&1, addresses))
          }

    %__MODULE__{
      rows: rows,
      hosts: hosts(rows),
      routed: Map.new(routed, fn {service, hosts} -> {service.key, hosts} end),
      conflicts: conflicts,
      shared: shared
    }
  end

  # Also counts endpoints that do not listen: the result must not change while a system starts.
  defp shared(services, ambiguous) do
    for host <- ambiguous,
        names =
          for(%{source: :endpoint} = service <- services, host in service.hosts, do: service.name),
        length(names) > 1,
        into: %{},
        do: {host, Enum.sort(names)}
  end

  defp shared?(shared, host, service),
    do: service.source == :endpoint and is_map_key(shared, host)

  defp owner?(owners, host, service),
    do: match?(%{key: key} when key == service.key, owners[host])

  defp claim({host, service}, {owners, conflicts}) do
    case owners do
      %{^host => owner} -> {owners, add_conflict(conflicts, host, owner, service)}
      _ -> {Map.put(owners, host, service), conflicts}
    end
  end

  # A service that does not listen is not in conflict.
  defp add_conflict(conflicts, _host, _owner, %{upstreams: []}), do: conflicts

  defp add_conflict(conflicts, host, owner, service),
    do: MapSet.put(conflicts, {host, Service.label(owner), Service.label(service)})

  defp hosts(rows) do
    for row <- rows, host <- row.hosts, into: %{}, do: {host, {row.name, row.upstreams}}
  end

  @doc "Returns a service with the hosts that are routed to it."
  def with_hosts(table, service),
    do: %{service | hosts: Map.get(table.routed, service.key, []), derived: []}

  @doc "Returns the key of the service that gets the requests for this host, or `nil`."
  def key(_table, nil), do: nil

  def key(table, host) do
    with suffix when suffix != nil <-
           Enum.find(Host.suffixes(host), &is_map_key(table.hosts, &1)),
         {key, _hosts} <- Enum.find(table.routed, fn {_key, hosts} -> suffix in hosts end),
         do: key
  end

  @doc "Returns whether the table routes this host, so that it can be the default."
  def routed?(_table, nil), do: false
  def routed?(table, host), do: Enum.any?(Host.suffixes(host), &is_map_key(table.hosts, &1))
end
