defmodule ExServiceMeshRouter.Index.Sample do
  @moduledoc false
  # What a service did between two readings of its counters.

  # Upper ends of the buckets that the data plane hands out, in nanoseconds.
  @bounds [100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000] ++
            [25_000_000, 50_000_000, 100_000_000, 250_000_000, 500_000_000] ++
            [1_000_000_000, 2_500_000_000, 10_000_000_000]

  @words %{
    bad_request: "a request was malformed",
    bad_host: "a request had a malformed host",
    target_too_long: "a request target was too long",
    head_too_long: "a request head was too long",
    too_many_fields: "a request had too many header fields",
    body_too_long: "a request body was too long",
    head_timeout: "a request head did not arrive in time",
    body_timeout: "a request body stopped arriving",
    reader_timeout: "a client stopped reading its answer",
    not_implemented: "a request wanted what the gateway does not do",
    misdirected: "an https target came without TLS, and not from a trusted proxy",
    request_loop: "the upstream leads back to the gateway",
    version: "a request had an unknown version of HTTP",
    unknown_service: "nobody has the host",
    not_listening: "it does not listen",
    held_too_long: "it did not come back in time",
    overloaded: "the gateway had no room for more",
    too_many_connections: "an address had too many connections",
    out_of_sockets: "the gateway could open no more connections",
    connect: "it refused the connection",
    unreachable: "this machine has no way to its address",
    connect_timeout: "it did not accept the connection in time",
    response_timeout: "it did not answer in time",
    upstream_closed: "it closed the connection before its answer was through",
    bad_response: "its answer was no HTTP",
    client_gone: "the client went away"
  }

  @doc """
  Per second: `rate` of requests, `errors` (answers 5xx and requests that failed); `p50`, `p99` of
  the time from a request to the head of its response, in milliseconds, `nil` where there were none
  (not to its end, which for an event stream is when the page is closed); and
  what is now: `in_flight`, `tunnels`, and `requests` in all.
  """
  def new(before, counters, seconds) do
    before = before || %{}
    buckets = buckets(before, counters)

    %{
      rate: per_second(before, counters, [:requests], seconds),
      errors: per_second(before, counters, [:responses_5xx], seconds),
      p50: quantile(buckets, 0.5),
      p99: quantile(buckets, 0.99),
      in_flight: counters.in_flight,
      tunnels: counters.tunnels_open,
      requests: counters.requests
    }
  end

  defp per_second(before, counters, keys, seconds) do
    delta = keys |> Enum.map(&(counters[&1] - Map.get(before, &1, 0))) |> Enum.sum()
    Float.round(max(delta, 0) / seconds, 1)
  end

  # Counts of each bucket alone, the last one being what is longer than all bounds.
  defp buckets(before, counters) do
    now = cumulative(counters)
    then = if before == %{}, do: Enum.map(now, fn _ -> 0 end), else: cumulative(before)

    {counts, _} =
      Enum.zip(now, then)
      |> Enum.map_reduce(0, fn {now, then}, passed -> {now - then - passed, now - then} end)

    Enum.zip(counts, @bounds ++ [nil])
  end

  defp cumulative(%{latency: %{first_byte: %{buckets: buckets, count: count}}}),
    do: buckets ++ [count]

  # Between the bounds of its bucket, in proportion: for drawing.
  defp quantile(buckets, share) do
    case Enum.reduce(buckets, 0, fn {count, _}, sum -> sum + count end) do
      total when total > 0 -> find(buckets, share * total, 0) |> milliseconds()
      _ -> nil
    end
  end

  defp find([{_count, nil}], _rank, low), do: low

  defp find([{count, high} | _], rank, low) when count > 0 and rank <= count,
    do: low + (high - low) * rank / count

  defp find([{count, high} | rest], rank, _low), do: find(rest, rank - count, high)

  defp milliseconds(nanoseconds), do: Float.round(nanoseconds / 1_000_000, 2)

  @doc """
  What went wrong between two readings, one entry for each service and kind. That a client went away
  is counted and is not among it: each event stream and each long poll ends so, sooner or later.
  """
  def errors(before, stats, time) do
    for {service, counters} <- Enum.sort(stats),
        {kind, now} <- counters.errors,
        kind != :client_gone,
        count = now - (get_in(before, [service, :errors, kind]) || 0),
        count > 0 do
      words = words(kind) <> reason(kind, counters)
      %{time: time, service: service, kind: kind, count: count, words: words}
    end
  end

  # What exactly was wrong is known of the last one.
  defp reason(:bad_response, %{last_bad_response: why}) when is_binary(why), do: ": " <> why
  defp reason(_kind, _counters), do: ""

  @doc "A kind of error as people say it."
  def words(kind), do: Map.get(@words, kind, kind |> Atom.to_string() |> String.replace("_", " "))
end
