defmodule ExServiceMeshRouter.Routes.Changes do
  @moduledoc false
  # What became of the routes, in one line for each host, said once.

  require Logger

  # A table of tenants may come with thousands of hosts at once; nobody reads that.
  @most 20

  def log(old, new) do
    lines =
      for host <- hosts(old, new), line = line(host, old.hosts[host], new.hosts[host]), do: line

    {shown, more} = Enum.split(lines, @most)
    Enum.each(shown, &Logger.info/1)
    if more != [], do: Logger.info("routes: #{length(more)} more changes")

    new.conflicts |> MapSet.difference(old.conflicts) |> Enum.sort() |> Enum.each(&warn/1)
  end

  defp hosts(%{hosts: same}, %{hosts: same}), do: []
  defp hosts(old, new), do: old.hosts |> Map.merge(new.hosts) |> Map.keys() |> Enum.sort()

  defp line(_host, same, same), do: nil
  # Known, and never yet seen to listen: at a start that is the rule, and no news.
  defp line(_host, nil, {_name, []}), do: nil
  defp line(host, nil, {name, upstreams}), do: "route #{host} -> #{name} at #{at(upstreams)}"
  defp line(_host, {_name, []}, nil), do: nil
  defp line(host, {name, _}, nil), do: "route #{host} -> #{name} removed"
  defp line(host, {name, _}, {name, []}), do: "route #{host} -> #{name} is down"
  defp line(host, {name, []}, {name, up}), do: "route #{host} -> #{name} at #{at(up)}"
  defp line(host, {name, _}, {name, up}), do: "route #{host} -> #{name} moved to #{at(up)}"
  defp line(host, {old, _}, {new, up}), do: "route #{host} -> #{new} at #{at(up)}, was #{old}"

  defp at([]), do: "no address"

  defp at(upstreams) do
    Enum.map_join(upstreams, ", ", fn
      {:tcp, ip, port} -> if(ip =~ ":", do: "[#{ip}]:#{port}", else: "#{ip}:#{port}")
      {:unix, path} -> "unix:" <> path
    end)
  end

  defp warn({host, winner, loser}) do
    Logger.warning(
      "route #{host} is claimed by both #{winner} and #{loser}; it goes to #{winner}. " <>
        "Give each its own host: `url: [host: ...]` of the endpoint, or the key in `services`"
    )
  end
end
