defmodule ExServiceMeshRouter.Registry.IndexRow do
  @moduledoc false
  # The index in the data plane's table: its hosts and its row. It is no service to those who ask for
  # services, so what the data plane says of it is taken out again here. Must not know the index itself.

  # The top-level domain of the first is reserved (RFC 6761 section 6.4), so that no service can have it.
  # The second is for people, and gives way to a service that has it.
  @anchor "mesh.invalid"
  @hosts [@anchor, "mesh.localhost"]
  @service "the index"

  @doc "The hosts of the index itself."
  def hosts, do: @hosts

  @doc "The host under which the data plane finds it, whatever else there is."
  def anchor, do: @anchor

  @doc "Its name in the data plane's table; no service can be called so, for this is no host."
  def service, do: @service

  @doc "The routing table's row of an index at this upstream, given the hosts that are taken."
  def row(nil, _taken), do: []

  def row(upstream, taken),
    do: [
      %{
        name: @service,
        hosts: [@anchor | Enum.reject(@hosts -- [@anchor], taken)],
        upstreams: [upstream]
      }
    ]

  @doc "What the data plane resolved, unless that is the index: then nothing."
  def hide({_rule, _matched, @service}), do: nil
  def hide(resolved), do: resolved

  @doc "Takes the index out of the counters of services: what came to it had no service."
  def hide_stats(stats) do
    case pop_in(stats, [:services, @service]) do
      {nil, stats} ->
        stats

      {index, stats} ->
        stats = update_in(stats.gateway.requests_unrouted, &(&1 + index.requests))
        %{stats | total: without(stats.total, index)}
    end
  end

  # What cannot be taken out of a sum once it is in there.
  @kept [:max, :p50, :p90, :p99, :p999, :last_bad_response]

  defp without(total, index) do
    Map.new(total, fn
      {key, value} when key in @kept -> {key, value}
      {key, value} when is_map(value) -> {key, without(value, index[key])}
      {key, value} when is_list(value) -> {key, Enum.zip_with(value, index[key], &-/2)}
      {key, value} -> {key, value - index[key]}
    end)
  end
end
