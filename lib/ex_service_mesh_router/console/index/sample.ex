defmodule ExServiceMeshRouter.Console.Index.Sample do
  @moduledoc false
  # Computes rates and quantiles of a service between two readings of its counters.

  alias ExServiceMeshRouter.Console.Index.Words

  @doc """
  Returns a sample:

    * `rate`, `errors` - requests and 5xx responses per second
    * `p50`, `p99` - milliseconds from a request to its response head, `nil` without requests. Not to its
      end: an event stream ends with its page
    * `in_flight`, `tunnels` - the current values
    * `requests` - the total

  `bounds` are the `latency_buckets` of the statistics.
  """
  def new(before, counters, seconds, bounds) do
    before = before || %{}
    buckets = buckets(before, counters, bounds)

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

  # The counts of single buckets; the last one is above all bounds.
  defp buckets(before, counters, bounds) do
    now = cumulative(counters)
    then = if before == %{}, do: Enum.map(now, fn _ -> 0 end), else: cumulative(before)

    {counts, _} =
      Enum.zip(now, then)
      |> Enum.map_reduce(0, fn {now, then}, passed -> {now - then - passed, now - then} end)

    Enum.zip(counts, bounds ++ [nil])
  end

  defp cumulative(%{latency: %{first_byte: %{buckets: buckets, count: count}}}),
    do: buckets ++ [count]

  # Interpolates linearly between the bounds of the bucket.
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
  Returns the errors between two readings, one entry per service and kind. Without `client_gone`, because
  every event stream and long poll ends so.
  """
  def errors(before, stats, time) do
    for {service, counters} <- Enum.sort(stats),
        {kind, now} <- counters.errors,
        kind != :client_gone,
        count = now - (get_in(before, [service, :errors, kind]) || 0),
        count > 0 do
      words = Words.error(kind) <> reason(kind, counters)
      %{time: time, service: service, kind: kind, count: count, words: words}
    end
  end

  # The statistics have the reason of the last one.
  defp reason(:bad_response, %{last_bad_response: why}) when is_binary(why), do: ": " <> why
  defp reason(_kind, _counters), do: ""
end
