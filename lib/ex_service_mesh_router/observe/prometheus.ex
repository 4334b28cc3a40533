defmodule ExServiceMeshRouter.Prometheus do
  @moduledoc """
  The statistics of the gateway for Prometheus, in its text format (version 0.0.4).

  Serve it at a port of its own, on loopback unless `ip` says otherwise:

      config :ex_service_mesh_router, metrics: [port: 9568]

  (asked by an address, `localhost`, a name that cannot be a stranger's, such as `app.internal`, or this
  machine's own name; other hosts are refused, as a web site may have its name point here), or behind
  the gateway, under a host of its own. Every client of the gateway can then read it:

      config :ex_service_mesh_router, metrics: [host: "metrics.internal"]

  Both answer at `/metrics`. An application that serves metrics already can add `scrape/0` to them.

  Metrics about requests have a label `service`; it is empty for requests that were refused before
  they had one. Times are in seconds, sizes in bytes. The buckets of histograms are exact to 1/16 of
  their bound, sums and counts are exact. `priv/grafana/ex_service_mesh_router.json` is a dashboard.

  OpenTelemetry's `http.server.request.duration` is `mesh_request_duration_seconds` here.
  """

  @methods [:get, :head, :post, :put, :patch, :delete, :options, :other]
  @classes [:responses_1xx, :responses_2xx, :responses_3xx, :responses_4xx, :responses_5xx]

  # {metric, type, what it says, key of the statistics}: one sample for each service.
  @of_services [
    {"mesh_requests_in_flight", :gauge, "Requests under way, tunnels not included.", :in_flight},
    {"mesh_request_body_bytes_total", :counter, "Body bytes from clients, framing included.",
     :request_body_bytes},
    {"mesh_retries_total", :counter, "Requests sent again on a new connection.", :retries},
    {"mesh_holds_total", :counter, "Requests that waited for an endpoint to come back.", :holds},
    {"mesh_tunnels_open", :gauge, "WebSockets that are open.", :tunnels_open},
    {"mesh_tunnels_total", :counter, "WebSockets that were opened.", :tunnels_total},
    {"mesh_tunnel_received_bytes_total", :counter, "Bytes of WebSockets from clients.",
     :tunnel_received_bytes},
    {"mesh_tunnel_sent_bytes_total", :counter, "Bytes of WebSockets to clients.",
     :tunnel_sent_bytes},
    {"mesh_upstream_connections_open", :gauge, "Connections to endpoints that are open.",
     :upstream_connections_open},
    {"mesh_upstream_connections_opened_total", :counter, "Connections to endpoints, opened.",
     :upstream_connections_opened},
    {"mesh_upstream_connections_reused_total", :counter, "Connections to endpoints, used again.",
     :upstream_connections_reused},
    {"mesh_upstream_connect_errors_total", :counter,
     "Attempts to reach an endpoint that failed, those of held requests included.",
     :connect_errors}
  ]

  @of_gateway [
    {"mesh_connections_accepted_total", :counter, "Client connections that were accepted.",
     :connections_accepted},
    {"mesh_connections_open", :gauge, "Client connections that are open.", :connections_open},
    {"mesh_connections_refused_total", :counter, "Client connections turned away by a limit.",
     :connections_refused},
    {"mesh_accept_errors_total", :counter, "Client connections that could not be accepted.",
     :accept_errors},
    {"mesh_requests_refused_total", :counter,
     "Requests that were malformed, too large or too slow.", :requests_refused},
    {"mesh_requests_unrouted_total", :counter, "Requests for a host that no service has.",
     :requests_unrouted},
    {"mesh_panics_total", :counter, "Connections lost to a fault of the gateway's own.", :panics},
    {"mesh_records_lost_total", :counter,
     "Requests missing from the access log or from telemetry, because nobody took them in time.",
     :records_lost}
  ]

  @histograms [
    {"mesh_request_duration_seconds",
     "From the request head read to the end of the response, whatever came of it.", :total},
    {"mesh_upstream_first_byte_seconds",
     "The endpoint's share: from the request sent to the response head read.", :first_byte},
    {"mesh_gateway_duration_seconds",
     "The gateway's share: reading to sending of both heads, connecting included.", :gateway}
  ]

  @doc "All metrics of a gateway. Where none runs there are none."
  @spec scrape(module()) :: String.t()
  def scrape(name \\ ExServiceMeshRouter) do
    case ExServiceMeshRouter.stats(name) do
      %{total: _} = stats -> stats |> render() |> IO.iodata_to_binary()
      _not_running -> ""
    end
  end

  @doc false
  def render(stats) do
    services = Enum.sort(stats.services)

    [
      metric("mesh_info", :gauge, "Version of the gateway.", [{[version: version()], 1}]),
      metric("mesh_requests_total", :counter, "Requests that were handed to a service.", [
        for({name, s} <- services, m <- @methods, do: {[service: name, method: m], s.methods[m]})
      ]),
      metric("mesh_responses_total", :counter, "Responses to clients, by status class.", [
        for({name, s} <- services, c <- @classes, do: {[service: name, code: code(c)], s[c]}),
        for(
          c <- [:responses_4xx, :responses_5xx],
          do: {[service: "", code: code(c)], stats.gateway[c]}
        )
      ]),
      metric(
        "mesh_response_body_bytes_total",
        :counter,
        "Body bytes to clients, framing included.",
        [
          for({name, s} <- services, do: {[service: name], s.response_body_bytes}),
          {[service: ""], stats.gateway.response_body_bytes}
        ]
      ),
      metric("mesh_errors_total", :counter, "Requests and connections that failed, by kind.", [
        for({name, s} <- [{"", stats.gateway} | services], {kind, n} <- Enum.sort(s.errors)) do
          if n > 0, do: {[service: name, kind: kind], n}, else: []
        end
      ]),
      metric("mesh_limits_reached_total", :counter, "How often a limit was reached.", [
        for({limit, n} <- Enum.sort(stats.gateway.limits), do: {[limit: limit], n})
      ]),
      for {metric, type, help, key} <- @of_gateway do
        metric(metric, type, help, [{[], stats.gateway[key]}])
      end,
      for {metric, type, help, key} <- @of_services do
        metric(metric, type, help, for({name, s} <- services, do: {[service: name], s[key]}))
      end,
      for {metric, help, key} <- @histograms do
        histogram(metric, help, services, stats.latency_buckets, key)
      end
    ]
  end

  defp metric(name, type, help, samples) do
    case List.flatten(samples) do
      [] -> []
      samples -> [about(name, type, help), Enum.map(samples, &sample(name, &1))]
    end
  end

  defp about(name, type, help), do: "# HELP #{name} #{help}\n# TYPE #{name} #{type}\n"

  defp sample(name, {labels, value}), do: [name, labels(labels), " ", number(value), "\n"]

  defp histogram(_name, _help, [], _bounds, _key), do: []

  defp histogram(name, help, services, bounds, key) do
    samples =
      for {service, %{latency: %{^key => values}}} <- services do
        buckets =
          for {bound, count} <- Enum.zip(bounds, values.buckets) do
            sample(name <> "_bucket", {[service: service, le: seconds(bound)], count})
          end

        [
          buckets,
          sample(name <> "_bucket", {[service: service, le: "+Inf"], values.count}),
          sample(name <> "_sum", {[service: service], values.sum / 1.0e9}),
          sample(name <> "_count", {[service: service], values.count})
        ]
      end

    [about(name, :histogram, help), samples]
  end

  defp labels([]), do: []

  defp labels(labels) do
    pairs = for {name, value} <- labels, do: ~s(#{name}="#{escape(to_string(value))}")
    ["{", Enum.intersperse(pairs, ","), "}"]
  end

  defp escape(value) do
    value
    |> String.replace("\\", "\\\\")
    |> String.replace("\"", "\\\"")
    |> String.replace("\n", "\\n")
  end

  # Whole seconds are written as such, and 0.0001 not as 1.0e-4.
  defp seconds(nanos) do
    text = :erlang.float_to_binary(nanos / 1.0e9, [:compact, decimals: 9])
    String.replace_suffix(text, ".0", "")
  end

  defp number(value) when is_integer(value), do: Integer.to_string(value)
  defp number(value), do: :erlang.float_to_binary(value, [:compact, decimals: 9])

  defp code(class), do: class |> Atom.to_string() |> String.replace_prefix("responses_", "")

  defp version do
    case Application.spec(:ex_service_mesh_router, :vsn) do
      nil -> "unknown"
      version -> List.to_string(version)
    end
  end
end
