defmodule ExServiceMeshRouter.Prometheus do
  @moduledoc """
  Formats the statistics of the gateway for Prometheus (text format, version 0.0.4).

  The gateway can serve them on a separate port, on loopback unless `ip` is set:

      config :ex_service_mesh_router, metrics: [port: 9568]

  The port accepts an IP address, `localhost`, a private name such as `app.internal`, or this machine's
  own name as host. It refuses other hosts, because a web site can point its name to this machine.

  The gateway can also serve them under a host of its own. All clients of the gateway can then read them:

      config :ex_service_mesh_router, metrics: [host: "metrics.internal"]

  In both cases the path is `/metrics`. An application that already serves metrics can append
  `scrape/0`.

  Metrics of requests have a label `service`, which is empty for requests that were refused before they
  had a service. Times are in seconds, sizes in bytes. Histogram buckets are exact to 1/16 of their
  bound; sums and counts are exact. `priv/grafana/ex_service_mesh_router.json` is a dashboard.

  ## Several nodes

  With `mesh` a request that another node serves passes two gateways. The metrics above count it only at
  the gateway that the client has asked, so a sum over all nodes counts each request of the cluster once:

      sum without (instance) (rate(mesh_requests_total[5m]))
      sum without (instance) (rate(mesh_responses_total{code="5xx"}[5m]))

  The node that served it counts it in metrics of its own, `mesh_from_peers_requests_total` and so on, which
  exist once there were such requests. `mesh_sent_to_peers_total` counts them at the other side.

  `mesh_peer_state` has one series for each other node: its value is 1, and its label `state` is `up`,
  `suspect`, `lost`, `unreachable`, or `unknown` before the first connection. `mesh_peers` counts them.
  An alert:

      mesh_peer_state{state=~"suspect|lost|unreachable"} == 1

  OpenTelemetry's `http.server.request.duration` is `mesh_request_duration_seconds` here.
  """

  alias ExServiceMeshRouter.Gateway
  alias ExServiceMeshRouter.Registry.PeerState

  @methods [:get, :head, :post, :put, :patch, :delete, :options, :other]
  @classes [:responses_1xx, :responses_2xx, :responses_3xx, :responses_4xx, :responses_5xx]

  # {metric, type, help, key of the statistics}: one sample for each service.
  @of_services [
    {"mesh_requests_in_flight", :gauge, "Open requests, excluding tunnels.", :in_flight},
    {"mesh_request_body_bytes_total", :counter, "Body bytes from clients, including framing.",
     :request_body_bytes},
    {"mesh_retries_total", :counter, "Requests sent again on a new connection.", :retries},
    {"mesh_sent_to_peers_total", :counter, "Requests that the gateway of another node served.",
     :sent_to_peers},
    {"mesh_holds_total", :counter, "Requests that waited for an endpoint to restart.", :holds},
    {"mesh_tunnels_open", :gauge, "Open WebSockets.", :tunnels_open},
    {"mesh_tunnels_total", :counter, "Opened WebSockets.", :tunnels_total},
    {"mesh_tunnel_received_bytes_total", :counter, "Bytes from clients through WebSockets.",
     :tunnel_received_bytes},
    {"mesh_tunnel_sent_bytes_total", :counter, "Bytes to clients through WebSockets.",
     :tunnel_sent_bytes},
    {"mesh_upstream_connections_open", :gauge, "Open connections to endpoints.",
     :upstream_connections_open},
    {"mesh_upstream_connections_opened_total", :counter, "Opened connections to endpoints.",
     :upstream_connections_opened},
    {"mesh_upstream_connections_reused_total", :counter, "Reused connections to endpoints.",
     :upstream_connections_reused},
    {"mesh_upstream_connect_errors_total", :counter,
     "Failed attempts to connect to an endpoint, including those of held requests.",
     :connect_errors}
  ]

  @of_gateway [
    {"mesh_connections_accepted_total", :counter, "Accepted client connections.",
     :connections_accepted},
    {"mesh_connections_open", :gauge, "Open client connections.", :connections_open},
    {"mesh_peer_connections_open", :gauge, "Open connections from gateways of other nodes.",
     :peer_connections_open},
    {"mesh_connections_refused_total", :counter, "Client connections refused by a limit.",
     :connections_refused},
    {"mesh_accept_errors_total", :counter, "Failed attempts to accept a client connection.",
     :accept_errors},
    {"mesh_requests_refused_total", :counter,
     "Requests that were malformed, too large or too slow.", :requests_refused},
    {"mesh_requests_unrouted_total", :counter, "Requests for a host that no service has.",
     :requests_unrouted},
    {"mesh_panics_total", :counter, "Connections lost to a bug of the gateway.", :panics},
    {"mesh_records_lost_total", :counter,
     "Requests missing from the access log or telemetry, because their consumer was too slow.",
     :records_lost}
  ]

  # The same of requests from other nodes. Their sizes and the time that each part took are with the
  # gateway that the client has asked.
  @from_peers [
    {"mesh_from_peers_requests_in_flight", :gauge,
     "Open requests of other nodes, excluding tunnels.", :in_flight},
    {"mesh_from_peers_tunnels_open", :gauge, "Open WebSockets of other nodes.", :tunnels_open},
    {"mesh_from_peers_upstream_connections_open", :gauge,
     "Open connections to endpoints for requests of other nodes.", :upstream_connections_open}
  ]

  @peer_states [:unknown, :up, :suspect, :lost, :unreachable]

  @histograms [
    {"mesh_request_duration_seconds",
     "Time from the request head to the end of the response, including failures.", :total},
    {"mesh_upstream_first_byte_seconds",
     "Time of the endpoint, from the request sent to the response head.", :first_byte},
    {"mesh_gateway_duration_seconds",
     "Time of the gateway, from reading to sending each head, including connecting.", :gateway}
  ]

  @doc "Returns all metrics of a gateway, or an empty string if it does not run."
  @spec scrape(module()) :: String.t()
  def scrape(name \\ ExServiceMeshRouter) do
    case ExServiceMeshRouter.stats(name) do
      %{total: _} = stats -> stats |> render(peers(name)) |> IO.iodata_to_binary()
      _not_running -> ""
    end
  end

  # `nil` without a mesh. The gateway may stop meanwhile.
  defp peers(name) do
    if Gateway.config(name).mesh, do: name |> PeerState.links() |> Map.values()
  catch
    :exit, _reason -> nil
  end

  @doc false
  def render(stats, peers \\ nil) do
    services = Enum.sort(stats.services)

    [
      metric("mesh_info", :gauge, "Version of the gateway.", [{[version: version()], 1}]),
      metric("mesh_requests_total", :counter, "Requests that had a service.", [
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
        "Body bytes to clients, including framing.",
        [
          for({name, s} <- services, do: {[service: name], s.response_body_bytes}),
          {[service: ""], stats.gateway.response_body_bytes}
        ]
      ),
      metric("mesh_errors_total", :counter, "Failed requests and connections, by kind.", [
        for({name, s} <- [{"", stats.gateway} | services], {kind, n} <- Enum.sort(s.errors)) do
          if n > 0, do: {[service: name, kind: kind], n}, else: []
        end
      ]),
      metric("mesh_grpc_calls_total", :counter, "gRPC calls that ended with a status.", [
        for({name, s} <- services, {status, n} <- Enum.sort(s.grpc)) do
          if n > 0, do: {[service: name, status: status], n}, else: []
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
      end,
      from_peers(Enum.sort(stats.from_peers), stats.latency_buckets),
      of_peers(peers)
    ]
  end

  defp from_peers(services, bounds) do
    [
      metric(
        "mesh_from_peers_requests_total",
        :counter,
        "Requests from the gateways of other nodes.",
        for({name, s} <- services, m <- @methods, do: {[service: name, method: m], s.methods[m]})
      ),
      metric(
        "mesh_from_peers_responses_total",
        :counter,
        "Responses to the gateways of other nodes, by status class.",
        for({name, s} <- services, c <- @classes, do: {[service: name, code: code(c)], s[c]})
      ),
      metric(
        "mesh_from_peers_errors_total",
        :counter,
        "Failed requests from the gateways of other nodes, by kind.",
        for(
          {name, s} <- services,
          {kind, n} <- Enum.sort(s.errors),
          n > 0,
          do: {[service: name, kind: kind], n}
        )
      ),
      for {metric, type, help, key} <- @from_peers do
        metric(metric, type, help, for({name, s} <- services, do: {[service: name], s[key]}))
      end,
      histogram(
        "mesh_from_peers_request_duration_seconds",
        "Time of requests from other nodes at this one.",
        services,
        bounds,
        :total
      )
    ]
  end

  # By the name of the node: a successor of a lost gateway has the same.
  defp of_peers(nil), do: []

  defp of_peers(peers) do
    counts = Enum.frequencies_by(peers, & &1.state)
    nodes = peers |> Enum.sort_by(&{&1.name, &1.state != :up}) |> Enum.uniq_by(& &1.name)

    [
      metric("mesh_peers", :gauge, "Gateways of other nodes, by state.", [
        for(state <- @peer_states, do: {[state: state], Map.get(counts, state, 0)})
      ]),
      metric("mesh_peer_state", :gauge, "The state of the gateway of each other node.", [
        for(peer <- nodes, do: {[node: peer.name, state: peer.state], 1})
      ]),
      metric("mesh_peer_connections", :gauge, "Open connections to gateways of other nodes.", [
        for(peer <- nodes, do: {[node: peer.name], peer.connections})
      ])
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

  # Formats 1.0 as 1, and 0.0001 without an exponent.
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
