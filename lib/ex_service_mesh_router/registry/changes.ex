defmodule ExServiceMeshRouter.Registry.Changes do
  @moduledoc false
  # Compares two tables. Makes lines for the log, one per service and kind of change, and telemetry
  # events, one per host.

  require Logger

  alias ExServiceMeshRouter.Config.Upstream

  # A change may concern thousands of hosts.
  @most 20

  @doc "Logs the changes and returns their lines."
  def log(old, new) do
    lines = lines(old, new)
    {shown, more} = Enum.split(lines, @most)
    Enum.each(shown, &Logger.info/1)
    if more != [], do: Logger.info("routes: #{length(more)} more changes")

    for {host, names} <- Enum.sort(new.shared), old.shared[host] != names do
      Logger.info(shared(host, names, new))
    end

    new.conflicts |> MapSet.difference(old.conflicts) |> Enum.sort() |> Enum.each(&warn/1)
    lines
  end

  defp hosts(%{hosts: same}, %{hosts: same}), do: []
  defp hosts(old, new), do: old.hosts |> Map.merge(new.hosts) |> Map.keys() |> Enum.sort()

  # A node that restarts or becomes a last resort is a change of the peer, not of its routes. Nor is a
  # restarted dispatcher one.
  defp route(table, host) do
    with {name, upstreams} <- table.hosts[host] do
      {name,
       Enum.map(
         upstreams,
         &if(Upstream.peer?(&1), do: Map.take(&1, [:kind, :node]), else: Upstream.place(&1))
       )}
    end
  end

  defp lines(old, new) do
    changes =
      for host <- hosts(old, new),
          what = change(route(old, host), route(new, host)),
          do: {what, host}

    changes
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.sort_by(fn {_what, hosts} -> hosts end)
    |> Enum.map(fn {what, hosts} -> "route #{Enum.join(hosts, ", ")} -> #{what}" end)
  end

  defp shared(host, names, table) do
    others = for %{name: name, hosts: [other | _]} <- table.rows, name in names, do: other

    "route #{host} is the host of #{Enum.join(names, " and ")}, and goes to none of them" <>
      if(others == [],
        do: "",
        else: "; they answer to #{others |> Enum.sort() |> Enum.join(", ")}"
      )
  end

  defp change(same, same), do: nil
  # A new service that does not listen yet, as at every start.
  defp change(nil, {_name, []}), do: nil
  defp change(nil, {name, upstreams}), do: "#{name} at #{at(upstreams)}"
  defp change({_name, []}, nil), do: nil
  defp change({name, _}, nil), do: "#{name} removed"
  defp change({name, _}, {name, []}), do: "#{name} is down"
  defp change({name, []}, {name, up}), do: "#{name} at #{at(up)}"
  defp change({name, _}, {name, up}), do: "#{name} moved to #{at(up)}"
  defp change({old, _}, {new, up}), do: "#{new} at #{at(up)}, was #{old}"

  defp at([]), do: "no address"

  defp at(upstreams) do
    Enum.map_join(
      upstreams,
      ", ",
      &(&1 |> Upstream.to_string() |> String.replace_prefix("http://", ""))
    )
  end

  defp warn({host, winner, loser}) do
    Logger.warning(
      "route #{host} is claimed by both #{winner} and #{loser}; it goes to #{winner}. " <>
        "Give each its own host: `url: [host: ...]` of the endpoint, or the key in `services`"
    )
  end

  @doc "Returns the events as `{event, metadata}`. The Reporter executes them, because handlers may be slow."
  def events(old, new) do
    routes =
      for host <- hosts(old, new),
          event = event(host, route(old, host), route(new, host)),
          do: event

    conflicts =
      for {host, winner, loser} <- MapSet.difference(new.conflicts, old.conflicts),
          do: {[:route, :conflict], %{host: host, service: winner, loser: loser}}

    routes ++ conflicts
  end

  defp event(_host, same, same), do: nil

  defp event(host, _old, {name, [_ | _] = upstreams}) do
    upstreams = Enum.map(upstreams, &Upstream.to_string/1)
    {[:route, :added], %{host: host, service: name, upstreams: upstreams}}
  end

  defp event(host, {name, [_ | _]}, _new), do: {[:route, :removed], %{host: host, service: name}}
  defp event(_host, _old, _new), do: nil
end
