defmodule ExServiceMeshRouter.Config.Options do
  @moduledoc false
  # The catalogue of configuration keys: what each accepts, its default, what it is for. The check,
  # the documentation and the tests read the same list.

  alias ExServiceMeshRouter.Config.{Check, Environment, Observe}

  @timeouts [
    connect: {2_000, "until an endpoint has accepted a connection"},
    head: {10_000, "from the first byte of a request head to its last"},
    idle: {75_000, "a client connection without a request, or a body that has stopped moving"},
    upstream_idle:
      {3_000,
       "how long an unused connection to an endpoint is kept; must be shorter than the endpoint's own limit (Cowboy: 5 s)"},
    response: {:infinity, "from the request's last byte to the response head"},
    hold:
      {:default,
       "how long a request waits for an endpoint that is just restarting; 0: not at all, it gets a 502 or 503 at once"},
    tunnel_idle: {:infinity, "a WebSocket on which nothing moves"},
    drain: {30_000, "how long a stopping gateway waits for open requests and tunnels"},
    lame_duck:
      {0,
       "how long it goes on accepting before that, telling clients to use other connections; for a balancer that hears late of a stop (Kubernetes)"}
  ]

  @doc "Name, default and meaning of the keys of `timeouts`. The default of `hold` depends."
  def timeouts do
    Keyword.update!(@timeouts, :hold, fn {:default, meaning} -> {hold(), meaning} end)
  end

  # A recompiled endpoint is away for a moment. In production a load balancer had better know.
  defp hold, do: if(Environment.development?(), do: 5_000, else: 0)

  @doc "Name, default and meaning of the keys of `limits`. The default of `connections` is computed."
  def limits do
    [
      head_bytes: {65_536, "longest request or response head, in bytes"},
      header_count: {100, "most header fields in a head"},
      body_bytes: {:infinity, "longest request body, in bytes"},
      connections: {connections(), "most client connections at once"},
      connections_per_client:
        {:infinity, "most of them from one address (IPv6: from one /64 network)"},
      requests_per_connection: {:infinity, "requests on a client connection before it is closed"},
      held_requests: {256, "most requests at once that `timeouts.hold` keeps waiting"},
      body_rate:
        {240,
         "bytes per second below which a client that sends or takes a body uses up its `idle` time instead of renewing it with every byte"},
      buffer_bytes:
        {33_554_432,
         "memory for long buffers and for what HTTP/2 keeps, in bytes, over all connections; beyond it buffers are small, see below"}
    ]
  end

  @reserve 128
  @most 65_536

  defp connections do
    descriptors = :erlang.system_info(:check_io) |> List.flatten() |> Keyword.get(:max_fds, 1_024)
    (descriptors - @reserve) |> div(3) |> max(64) |> min(@most)
  end

  @doc "`{key, type, default in words, meaning}` of every top-level key."
  def all do
    [
      {:port, "0..65535", "4000",
       "port to listen on; 0 picks a free one, see `ExServiceMeshRouter.port/0`"},
      {:ip, "`:loopback`, `:any`, an address tuple, or a list of tuples", "`:loopback`",
       "addresses to listen on; `:loopback` is 127.0.0.1 and ::1, `:any` is everything, IPv4 and IPv6"},
      {:server, "`true` or `false`",
       "as Phoenix: `config :phoenix, :serve_endpoints`, else `false`",
       "whether to listen at all"},
      {:workers, "an integer from 1 to the number of dirty IO schedulers less two",
       "a quarter of the schedulers online, at least 1",
       "threads of the data plane; each takes one dirty IO scheduler, of which all gateways of a VM together leave two to file IO"},
      {:services, "map of host to upstream, `#{ExServiceMeshRouter.Config.Upstream.accepted()}`",
       "`%{}`", "services that are no Phoenix endpoints of this system"},
      {:discover,
       "`true`, `false`, or `[only: [...], except: [...]]` with applications or endpoints",
       "`true`", "which Phoenix endpoints get a route"},
      {:private_listeners, "`:auto`, `:never`, `:all`, or a list of endpoints", "`:auto`",
       "which endpoints get a private listener instead of one of their own, see below"},
      {:default, "a host, or `nil`", "`nil`",
       "host whose service answers for unknown hosts; without it they get a 404"},
      {:dev_domain, "a domain, or `nil`",
       "`\"localhost\"` in development (`MIX_ENV=dev`), else `nil`",
       "each endpoint also answers to the name of its application below this domain (`auth_web`: auth.localhost), and so do its tenants"},
      {:index,
       "`:auto`, `true`, `false`, or `[allow: [...]]` with addresses and CIDR blocks, as strings",
       "`:auto`",
       "a page with all services, for hosts that nobody has and for the gateway's own address; `:auto` is development only, and only loopback sees it, unless others are allowed"},
      {:doctor, "`true`, `false`, or `[except: [...]]` with names of checks", "`true`",
       "what is wrong with the gateway's surroundings is named in the log, on the index, and by `mix mesh.doctor`; see `ExServiceMeshRouter.Doctor`"},
      {:trusted_proxies, "list of addresses and CIDR blocks, as strings", "`[]`",
       "peers whose forwarded header fields are believed"},
      {:proxy_protocol, "`:v1`, `:v2`, `:any`, or `nil`", "`nil`",
       "PROXY protocol header with which trusted peers must announce their clients"},
      {:timeouts, "keyword list; milliseconds or `:infinity`", defaults(timeouts()),
       meanings(timeouts())},
      {:limits, "keyword list; integers, or `:infinity` where a limit can be done without",
       defaults(limits()), meanings(limits())},
      {:request_id, "`true` or `false`", "`true`",
       "keep a client's `X-Request-Id` if Plug.RequestId would, else make one"},
      {:trace, "`:start` or `nil`", "`nil`",
       "begin a W3C trace (`traceparent`) where a request brings none; others pass untouched"},
      {:server_timing, "`true` or `false`", "`false`",
       "tell clients by `Server-Timing` where the time went"},
      {:telemetry, "`[sample: ...]` with a share from 0.0 to 1.0, or `false`",
       "`[sample: false]`",
       "share of the requests that become telemetry events, see `ExServiceMeshRouter.Telemetry`"},
      {:access_log,
       "`false`, or a keyword list: `format` (`:common`, `:combined`, `:json`, `:logfmt`), `to` (`:logger` or a path), `query`",
       "`false`; in the list `format: :combined`, `to: :logger`, `query: false`",
       "a line for every request, see `ExServiceMeshRouter.AccessLog`"},
      {:metrics, "`false`, `[port: ...]` (and `ip: ...`), or `[host: ...]`",
       "`false`; `ip: {127, 0, 0, 1}`",
       "where `/metrics` is served, see `ExServiceMeshRouter.Prometheus`"}
    ]
  end

  @doc "The catalogue as a Markdown table."
  def table do
    rows =
      for {key, type, default, meaning} <- all(),
          do: "| `#{key}` | #{type} | #{default} | #{meaning} |\n"

    "| key | values | default | meaning |\n| --- | --- | --- | --- |\n#{rows}"
  end

  defp defaults(group) do
    Enum.map_join(group, ", ", fn
      {:connections, _} -> "`connections`: see below"
      {:hold, _} -> "`hold: 5000` in development (`MIX_ENV=dev`), else `hold: 0`"
      {key, {value, _}} -> "`#{key}: #{inspect(value)}`"
    end)
  end

  defp meanings(group),
    do: Enum.map_join(group, "; ", fn {key, {_, meaning}} -> "`#{key}`: #{meaning}" end)

  @doc "Checks all options: `{values, mistakes}`, the values with the defaults filled in."
  def check(options) do
    unknown = Check.unknown(options, Enum.map(all(), &elem(&1, 0)), "")

    {values, mistakes} =
      Enum.map_reduce(all(), [], fn {key, _, _, _}, mistakes ->
        {value, new} = check_key(key, Keyword.get(options, key, unset(key)))
        {{key, value}, mistakes ++ new}
      end)

    {Map.new(values), unknown ++ mistakes}
  end

  defp unset(:dev_domain), do: :none
  defp unset(_key), do: nil

  defp check_key(:port, nil), do: {4_000, []}
  defp check_key(:port, value), do: Check.port(value)
  defp check_key(:ip, nil), do: {:loopback, []}
  defp check_key(:ip, value), do: Check.ip(value)
  defp check_key(:server, value), do: Check.server(value)
  defp check_key(:workers, nil), do: {Check.default_workers(), []}
  defp check_key(:workers, value), do: Check.workers(value)
  defp check_key(:services, nil), do: {%{}, []}
  defp check_key(:services, value), do: Check.services(value)
  defp check_key(:discover, nil), do: {true, []}
  defp check_key(:discover, value), do: Check.discover(value)
  defp check_key(:private_listeners, nil), do: {:auto, []}
  defp check_key(:private_listeners, value), do: Check.private_listeners(value)
  defp check_key(:default, nil), do: {nil, []}
  defp check_key(:default, value), do: Check.default(value)

  # `nil` in the configuration switches off what is on by default, so it is not the same as no key.
  defp check_key(:dev_domain, :none), do: {if(Environment.development?(), do: "localhost"), []}
  defp check_key(:dev_domain, value), do: Check.dev_domain(value)

  defp check_key(:index, value) when value in [nil, :auto],
    do: Check.index(Environment.development?())

  defp check_key(:index, value), do: Check.index(value)
  defp check_key(:doctor, nil), do: Check.doctor(true)
  defp check_key(:doctor, value), do: Check.doctor(value)
  defp check_key(:trusted_proxies, nil), do: {[], []}
  defp check_key(:trusted_proxies, value), do: Check.trusted_proxies(value)

  defp check_key(:request_id, value),
    do: Observe.flag(:request_id, if(value == nil, do: true, else: value))

  defp check_key(:server_timing, value), do: Observe.flag(:server_timing, value || false)
  defp check_key(:trace, value), do: Observe.trace(value)
  defp check_key(:telemetry, value), do: Observe.telemetry(value || [])
  defp check_key(:access_log, value), do: Observe.access_log(value || false)
  defp check_key(:metrics, value), do: Observe.metrics(value || false)

  defp check_key(:proxy_protocol, value), do: Check.proxy_protocol(value)

  defp check_key(:timeouts, value),
    do: Check.group(:timeouts, value || [], timeouts(), &Check.time/1)

  defp check_key(:limits, value), do: Check.group(:limits, value || [], limits(), &Check.limit/1)
end
