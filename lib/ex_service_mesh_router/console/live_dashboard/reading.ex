defmodule ExServiceMeshRouter.LiveDashboard.Reading do
  @moduledoc false
  # Reads the counters of a gateway, on any node, and compares them with the previous reading, for the
  # page of the dashboard. Must not need the dashboard.

  alias ExServiceMeshRouter.{Gateway, Mesh, Registry}
  alias ExServiceMeshRouter.Console.Places
  alias ExServiceMeshRouter.Console.Index.{Findings, Live, Report, Sample}

  defstruct [:node, :gateway, :facts, :before]

  # Rates over fewer milliseconds are meaningless.
  @shortest 500

  @idle %{rate: 0.0, errors: 0.0, p50: nil, p99: nil}

  @doc "Returns the first reading, without rates."
  def new(node, gateway),
    do: %__MODULE__{node: node, gateway: gateway, facts: ask(node, gateway)}

  @doc "Returns the next reading, or the same one if it is too recent."
  def next(%{facts: before} = reading) do
    now = ask(reading.node, reading.gateway)

    cond do
      # A restarted gateway counts from zero.
      now == nil or before == nil or now.started != before.started ->
        %{reading | facts: now, before: nil}

      now.time - before.time < @shortest ->
        reading

      true ->
        %{reading | facts: now, before: before}
    end
  end

  @doc "Returns whether the gateway runs."
  def running?(reading), do: reading.facts != nil

  @doc "Returns the gateway's addresses."
  def addresses(reading), do: reading.facts.addresses

  @doc "Returns the changes of routes as `{time, line}`, the latest first."
  def history(reading), do: reading.facts.history

  @doc "Returns the doctor's findings."
  def findings(reading), do: reading.facts.findings

  @doc "Returns the line about the mesh."
  def mesh(reading), do: reading.facts.mesh.line

  @doc "Returns lines about the nodes that requests avoid."
  def avoided(reading), do: Places.avoided(reading.facts.mesh)

  @doc "Returns the errors since the start as lines, the most frequent first."
  def errors(reading) do
    for error <-
          Sample.errors(%{}, reading.facts.stats.services, nil) |> Enum.sort_by(&(-&1.count)),
        do: Live.error_line(error)
  end

  @doc "Returns the sums over all services, in the form of one of `services/1`."
  def total(reading), do: numbers(reading, & &1.total)

  @doc "Returns the number of open client connections."
  def connections(reading), do: reading.facts.stats.gateway.connections_open

  @doc """
  Returns the services with their values since the previous reading (`rate`, `errors`, `p50`, `p99`),
  current values (`in_flight`, `tunnels`) and totals (`requests`, and the bytes `received` and `sent`).
  """
  def services(%{facts: nil}), do: []

  def services(reading) do
    for service <- reading.facts.services do
      service
      |> Map.take([:name, :hosts, :upstreams, :peers, :state])
      |> Map.merge(numbers(reading, & &1.services[service.name]))
    end
  end

  defp numbers(%{facts: facts, before: before}, counters) do
    now = counters.(facts.stats)

    sample =
      if before && now do
        seconds = (facts.time - before.time) / 1_000
        Sample.new(counters.(before.stats), now, seconds, facts.stats.latency_buckets)
      else
        %{@idle | rate: nil, errors: nil}
      end

    now = now || %{in_flight: 0, tunnels_open: 0, requests: 0}

    Map.merge(sample, %{
      in_flight: now.in_flight,
      tunnels: now.tunnels_open,
      requests: now.requests,
      received: bytes(now, [:request_body_bytes, :tunnel_received_bytes]),
      sent: bytes(now, [:response_body_bytes, :tunnel_sent_bytes])
    })
  end

  defp bytes(counters, keys), do: keys |> Enum.map(&Map.get(counters, &1, 0)) |> Enum.sum()

  @doc """
  Returns the sorted rows of the table, and their number without `limit`: the services whose name, host
  or upstream contains `search`.
  """
  def rows(reading, %{search: search, sort_by: key, sort_dir: direction, limit: limit}) do
    found = reading |> services() |> Enum.filter(&matches?(&1, search))
    # Unknown values sort below known ones.
    sorted = Enum.sort_by(found, &{&1[key] != nil, &1[key]}, direction)
    {if(limit, do: Enum.take(sorted, limit), else: sorted), length(found)}
  end

  defp matches?(_service, nil), do: true

  defp matches?(service, search) do
    search = String.downcase(search)

    [service.name | service.hosts ++ service.upstreams]
    |> Enum.any?(&(&1 |> String.downcase() |> String.contains?(search)))
  end

  # The other node may be down or have an older version, whose facts have no mesh.
  defp ask(node, gateway) do
    with %{} = facts <- :erpc.call(node, __MODULE__, :facts, [gateway], 5_000),
         do: Map.put_new(facts, :mesh, %{line: "off", nodes: []})
  catch
    _kind, _reason -> nil
  end

  @doc "Reads all values, on the node of the gateway. `nil` if it does not run."
  def facts(gateway) do
    with %{total: _} = stats <- ExServiceMeshRouter.stats(gateway) do
      %{
        time: System.monotonic_time(:millisecond),
        started: Gateway.ref(gateway),
        stats: stats,
        services: ExServiceMeshRouter.services(gateway),
        addresses: Report.addresses(gateway),
        history: Registry.history(gateway),
        findings: Findings.now(gateway),
        mesh: Mesh.status(gateway)
      }
    else
      _not_running -> nil
    end
  end
end
