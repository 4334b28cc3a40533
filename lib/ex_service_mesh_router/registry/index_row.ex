defmodule ExServiceMeshRouter.Registry.IndexRow do
  @moduledoc false
  # Adds the index to the data plane's table and removes it from the data plane's answers, because it
  # is not a service for users. Must not know the index itself.

  # The top-level domain of the anchor is reserved (RFC 6761 section 6.4), so that services cannot have
  # it. The other host is for users; a service that has it takes precedence.
  @anchor "mesh.invalid"
  @hosts [@anchor, "mesh.localhost"]
  @service "the index"

  @doc "Returns the hosts of the index."
  def hosts, do: @hosts

  @doc "Returns the host that always leads to the index."
  def anchor, do: @anchor

  @doc "Returns the name of the index in the data plane's table. Services cannot have it: it is not a host."
  def service, do: @service

  @doc "Returns the rows of an index at this upstream. `taken` tells whether a service has a host."
  def row(nil, _taken), do: []

  def row(upstream, taken),
    do: [
      %{
        name: @service,
        hosts: [@anchor | Enum.reject(@hosts -- [@anchor], taken)],
        upstreams: [upstream]
      }
    ]

  @doc "Returns the resolved route, or `nil` if it is the index."
  def hide({_rule, _matched, @service}), do: nil
  def hide(resolved), do: resolved

  @doc "Moves the requests of the index from the services to `requests_unrouted`."
  def hide_stats(stats) do
    case pop_in(stats, [:services, @service]) do
      {nil, stats} ->
        stats

      {index, stats} ->
        stats = update_in(stats.gateway.requests_unrouted, &(&1 + index.requests))
        %{stats | total: without(stats.total, index)}
    end
  end

  # These cannot be subtracted.
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
