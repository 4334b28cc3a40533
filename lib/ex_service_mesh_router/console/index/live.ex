defmodule ExServiceMeshRouter.Console.Index.Live do
  @moduledoc false
  # Renders the parts of the page that change: numbers and charts of services, errors, and routes.

  import ExServiceMeshRouter.Console.Index.Html, only: [escape: 1]

  alias ExServiceMeshRouter.Console.Index.{Chart, Words}

  @idle %{rate: 0.0, errors: 0.0, p50: nil, p99: nil, in_flight: 0, tunnels: 0, requests: 0}

  @doc "Returns the latest sample of a service."
  def latest([sample | _]), do: sample
  def latest(_none), do: @idle

  @doc "Returns the latest sample of each service."
  def numbers(live), do: Map.new(live, fn {service, samples} -> {service, latest(samples)} end)

  @doc "Renders the charts and numbers of one service."
  def traffic(name, samples) do
    now = latest(samples)

    [
      ~s|<div class="live" data-service="#{escape(name)}">|,
      figure("rate", "Requests", samples, [:rate], "#{Words.number(now.rate)}/s"),
      figure("errors", "Errors 5xx", samples, [:errors], "#{Words.number(now.errors)}/s"),
      figure("latency", "p50, p99", samples, [:p50, :p99], times(samples)),
      plain("in_flight", "In flight", now.in_flight),
      plain("tunnels", "Tunnels", now.tunnels),
      plain("requests", "Total", now.requests),
      "</div>"
    ]
  end

  defp figure(key, label, samples, keys, text) do
    [
      ~s|<div class="metric chart" data-metric="#{key}"><span class="label">#{label}</span>|,
      ~s|<span class="value">#{text}</span>|,
      Chart.svg(samples, keys),
      "</div>"
    ]
  end

  defp plain(key, label, value) do
    ~s|<div class="metric" data-metric="#{key}"><span class="label">#{label}</span>| <>
      ~s|<span class="value">#{value}</span></div>|
  end

  # Of the last second with requests.
  defp times(samples) do
    case Enum.find(samples, & &1.p50) do
      nil -> "–"
      %{p50: p50, p99: p99} -> "#{Words.time(p50)}, #{Words.time(p99)}"
    end
  end

  @doc "Renders the latest errors."
  def errors([]), do: ~s|<p class="quiet">None yet.</p>|

  def errors(errors) do
    [~s|<ul class="log">|, for(error <- errors, do: item(error.time, error_line(error))), "</ul>"]
  end

  @doc "Describes one error."
  def error_line(%{count: 1} = error), do: "#{error.service}: #{error.words}"
  def error_line(error), do: "#{error.service}: #{error.words} (#{error.count} times)"

  @doc "Renders the latest changes of routes."
  def history([]), do: ~s|<p class="quiet">None yet.</p>|

  def history(history),
    do: [~s|<ul class="log">|, for({time, line} <- history, do: item(time, line)), "</ul>"]

  defp item(time, text) do
    iso = time |> DateTime.truncate(:second) |> DateTime.to_iso8601()
    clock = Calendar.strftime(time, "%H:%M:%S")

    ~s|<li><time class="clock" datetime="#{iso}">#{clock} UTC</time> <span>#{escape(text)}</span></li>|
  end
end
