defmodule ExServiceMeshRouter.Registry.Table do
  @moduledoc false
  # From services to the table of the data plane: each host goes to one service, or to none.
  #
  # Hosts are given out in this order: those that somebody wrote down, by precedence of the services;
  # then the derived ones, which never take anything from the former. A host that says nothing
  # (DevNames.shared/1) and that several endpoints have goes to none of them.

  alias ExServiceMeshRouter.Config.{Host, Upstream}
  alias ExServiceMeshRouter.Registry.Service

  # rows: each service with its hosts and its upstreams, names resolved. hosts: `%{host => {service name, upstreams}}`, for people.
  # conflicts: `{host, winner, loser}`. shared: `%{host => [name]}` of the endpoints that have it.
  defstruct rows: [], hosts: %{}, conflicts: MapSet.new(), shared: %{}

  def empty, do: %__MODULE__{}

  def build(services, addresses, meaningless \\ []) do
    sorted = services |> Map.values() |> Enum.sort_by(&Service.precedence/1)
    shared = shared(sorted, meaningless)

    own =
      for service <- sorted,
          host <- service.hosts,
          not shared?(shared, host, service),
          do: {host, service}

    written = MapSet.new(own, &elem(&1, 0))

    derived =
      for service <- sorted, host <- service.derived, host not in written, do: {host, service}

    {owners, conflicts} = Enum.reduce(own ++ derived, {%{}, MapSet.new()}, &claim/2)

    rows =
      for service <- sorted,
          hosts = Enum.filter(service.hosts ++ service.derived, &owner?(owners, &1, service)),
          hosts != [],
          do: %{
            name: service.name,
            hosts: hosts,
            upstreams: Enum.flat_map(service.upstreams, &Upstream.resolve(&1, addresses))
          }

    %__MODULE__{rows: rows, hosts: hosts(rows), conflicts: conflicts, shared: shared}
  end

  # Whether they listen does not matter: the answer must not change while a system starts.
  defp shared(services, meaningless) do
    for host <- meaningless,
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

  # Who does not listen takes nothing from anybody.
  defp add_conflict(conflicts, _host, _owner, %{upstreams: []}), do: conflicts

  defp add_conflict(conflicts, host, owner, service),
    do: MapSet.put(conflicts, {host, owner.name, service.name})

  defp hosts(rows) do
    for row <- rows, host <- row.hosts, into: %{}, do: {host, {row.name, row.upstreams}}
  end

  @doc "Whether the table has an answer for this host, so that it can be the default."
  def routed?(_table, nil), do: false
  def routed?(table, host), do: Enum.any?(Host.suffixes(host), &is_map_key(table.hosts, &1))
end
