defmodule ExServiceMeshRouter.Routes.Table do
  @moduledoc false
  # From services to the table of the data plane: each host goes to exactly one service.

  alias ExServiceMeshRouter.{Host, Service, Upstream}

  # rows: the terms for the data plane. hosts: `%{host => {service name, upstreams}}`, for people.
  # conflicts: `{host, winner, loser}`.
  defstruct rows: [], hosts: %{}, conflicts: MapSet.new()

  def empty, do: %__MODULE__{}

  def build(services, addresses) do
    sorted = services |> Map.values() |> Enum.sort_by(&Service.precedence/1)
    {owners, conflicts} = Enum.reduce(sorted, {%{}, MapSet.new()}, &claim/2)

    rows =
      for service <- sorted,
          hosts = Enum.filter(service.hosts, &(owners[&1].key == service.key)),
          hosts != [],
          do: {service.name, hosts, Enum.flat_map(service.upstreams, &native(&1, addresses))}

    %__MODULE__{rows: rows, hosts: hosts(rows), conflicts: conflicts}
  end

  defp claim(service, acc) do
    Enum.reduce(service.hosts, acc, fn host, {owners, conflicts} ->
      case owners do
        %{^host => owner} -> {owners, add_conflict(conflicts, host, owner, service)}
        _ -> {Map.put(owners, host, service), conflicts}
      end
    end)
  end

  # Who does not listen takes nothing from anybody.
  defp add_conflict(conflicts, _host, _owner, %{upstreams: []}), do: conflicts

  defp add_conflict(conflicts, host, owner, service),
    do: MapSet.put(conflicts, {host, owner.name, service.name})

  defp native({:name, name, port}, addresses) do
    for ip <- Map.get(addresses, name, []), do: Upstream.to_native({:tcp, ip, port})
  end

  defp native(upstream, _addresses), do: [Upstream.to_native(upstream)]

  defp hosts(rows) do
    for {name, hosts, upstreams} <- rows, host <- hosts, into: %{}, do: {host, {name, upstreams}}
  end

  @doc "Whether the table has an answer for this host, so that it can be the default."
  def routed?(_table, nil), do: false
  def routed?(table, host), do: Enum.any?(Host.suffixes(host), &is_map_key(table.hosts, &1))
end
