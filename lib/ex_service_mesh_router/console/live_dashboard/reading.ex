defmodule ExServiceMeshRouter.LiveDashboard.Reading do
  @moduledoc false
  # What the dashboard's page shows: a gateway's counters, on whichever node it runs, and what became
  # of them since the reading before. Nothing in it needs the dashboard.

  alias ExServiceMeshRouter.{Gateway, Registry}
  alias ExServiceMeshRouter.Console.Index.{Findings, Live, Report, Sample}

  defstruct [:node, :gateway, :facts, :before]

  # A rate of less time than that says nothing.
  @shortest 500

  @idle %{rate: 0.0, errors: 0.0, p50: nil, p99: nil}

  @doc "The first reading, which knows no rates yet."
  def new(node, gateway),
    do: %__MODULE__{node: node, gateway: gateway, facts: ask(node, gateway)}

  @doc "The reading after `reading`; the same one if there has hardly been time for another."
  def next(%{facts: before} = reading) do
    now = ask(reading.node, reading.gateway)

    cond do
      # A gateway that has started since then counts from nothing.
      now == nil or before == nil or now.started != before.started ->
        %{reading | facts: now, before: nil}

      now.time - before.time < @shortest ->
        reading

      true ->
        %{reading | facts: now, before: before}
    end
  end

  @doc "Whether the gateway runs."
  def running?(reading), do: reading.facts != nil

  @doc "Where it listens."
  def addresses(reading), do: reading.facts.addresses

  @doc "What became of the routes, the latest first: `{time, line}`."
  def history(reading), do: reading.facts.history

  @doc "What the doctor has found."
  def findings(reading), do: reading.facts.findings

  @doc "What went wrong since the start, in words, most often first."
  def errors(reading) do
    for error <-
          Sample.errors(%{}, reading.facts.stats.services, nil) |> Enum.sort_by(&(-&1.count)),
        do: Live.error_line(error)
  end

  @doc "The sums over all services, as one of `services/1`."
  def total(reading), do: numbers(reading, & &1.total)

  @doc "Connections of clients that are open."
  def connections(reading), do: reading.facts.stats.gateway.connections_open

  @doc """
  The services: what they are, and of each what came since the reading before (`rate`, `errors`,
  `p50`, `p99`), what is now (`in_flight`, `tunnels`) and what came in all (`requests`, and the
  bytes `received` and `sent`).
  """
  def services(%{facts: nil}), do: []

  def services(reading) do
    for service <- reading.facts.services do
      service
      |> Map.take([:name, :hosts, :upstreams, :state])
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
  The rows of the table, and how many there would be without `limit`: those services whose name, host
  or upstream has `search` in it, sorted.
  """
  def rows(reading, %{search: search, sort_by: key, sort_dir: direction, limit: limit}) do
    found = reading |> services() |> Enum.filter(&matches?(&1, search))
    # What is not known comes after what is little.
    sorted = Enum.sort_by(found, &{&1[key] != nil, &1[key]}, direction)
    {if(limit, do: Enum.take(sorted, limit), else: sorted), length(found)}
  end

  defp matches?(_service, nil), do: true

  defp matches?(service, search) do
    search = String.downcase(search)

    [service.name | service.hosts ++ service.upstreams]
    |> Enum.any?(&(&1 |> String.downcase() |> String.contains?(search)))
  end

  # The other node may have gone, or have an application that is older than this one.
  defp ask(node, gateway) do
    :erpc.call(node, __MODULE__, :facts, [gateway], 5_000)
  catch
    _kind, _reason -> nil
  end

  @doc "On the node of the gateway: all that there is to read. `nil` where it does not run."
  def facts(gateway) do
    with %{total: _} = stats <- ExServiceMeshRouter.stats(gateway) do
      %{
        time: System.monotonic_time(:millisecond),
        started: Gateway.ref(gateway),
        stats: stats,
        services: ExServiceMeshRouter.services(gateway),
        addresses: Report.addresses(gateway),
        history: Registry.history(gateway),
        findings: Findings.now(gateway)
      }
    else
      _not_running -> nil
    end
  end
end
