defmodule ExServiceMeshRouter.Registry.Events do
  @moduledoc false
  # What became of the routes, as telemetry has it: `{event, metadata}` for each host. Made here,
  # executed by the Reporter, so that nobody's handler keeps the registry from its work.

  def between(old, new), do: hosts(old, new) ++ conflicts(old, new)

  defp hosts(%{hosts: same}, %{hosts: same}), do: []

  defp hosts(old, new) do
    for host <- old.hosts |> Map.merge(new.hosts) |> Map.keys() |> Enum.sort(),
        event = event(host, old.hosts[host], new.hosts[host]),
        do: event
  end

  defp event(_host, same, same), do: nil

  defp event(host, _old, {name, [_ | _] = upstreams}) do
    {[:route, :added], %{host: host, service: name, upstreams: Enum.map(upstreams, &text/1)}}
  end

  defp event(host, {name, [_ | _]}, _new), do: {[:route, :removed], %{host: host, service: name}}
  defp event(_host, _old, _new), do: nil

  defp conflicts(old, new) do
    for {host, winner, loser} <- MapSet.difference(new.conflicts, old.conflicts),
        do: {[:route, :conflict], %{host: host, service: winner, loser: loser}}
  end

  defp text({:tcp, ip, port}),
    do: if(ip =~ ":", do: "http://[#{ip}]:#{port}", else: "http://#{ip}:#{port}")

  defp text({:loopback, port}), do: "http://localhost:#{port}"
  defp text({:unix, path}), do: "unix:" <> path
end
