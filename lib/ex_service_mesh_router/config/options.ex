defmodule ExServiceMeshRouter.Config.Options do
  @moduledoc false
  # All options. The checks, the documentation, the typespec and what the data plane is told are made
  # from these lists: a new limit or timeout is one entry here, and one field of its struct in Rust.
  #
  # An entry is `{key, type, default, meaning}`, see Type, and may end in:
  #
  #   * `native: true` or `false` - whether the data plane is told. Of `timeouts` and `limits` it is told
  #     all but those with `false`, of the others those with `true`.
  #   * `values:`, `shown:` - the accepted values and the default in the documentation, where they depend
  #     on the machine or are unclear otherwise

  alias ExServiceMeshRouter.Config.{Environment, Type, Upstream}

  @flag {:in, [true, false]}

  defp timeouts do
    [
      {:connect, time(1), 2_000, "until an endpoint has accepted a connection"},
      {:head, time(1), 10_000, "from the first byte of a request head to its last"},
      {:idle, time(1), 75_000,
       "a client connection without a request, or a body that has stopped moving"},
      {:upstream_idle, time(1), 3_000,
       "how long an unused connection to an endpoint is kept; must be shorter than the endpoint's own limit (Cowboy: 5 s)"},
      {:response, time(1), :infinity, "from the request's last byte to the response head"},
      {:hold, time(0), hold(),
       "how long a request waits for an endpoint that is just restarting; 0: not at all, it gets a 502 or 503 at once",
       shown: "`5000` in development (`MIX_ENV=dev`), else `0`"},
      {:tunnel_idle, time(1), :infinity, "a WebSocket on which nothing moves"},
      {:drain, time(0), 30_000, "how long a stopping gateway waits for open requests and tunnels",
       native: false},
      {:lame_duck, {"milliseconds", 0}, 0,
       "how long it goes on accepting before that, telling clients to use other connections; for a balancer that hears late of a stop (Kubernetes)",
       native: false}
    ]
  end

  defp time(min), do: {:or, :infinity, {"milliseconds", min}}

  # A recompiled endpoint is away for a moment. In production a load balancer had better know.
  defp hold, do: if(Environment.development?(), do: 5_000, else: 0)

  defp limits do
    [
      {:head_bytes, {"bytes", 1_024..16_777_216}, 65_536, "longest request or response head"},
      {:header_count, {"an integer", 8..512}, 100, "most header fields in a head"},
      {:body_bytes, {:or, :infinity, {"bytes", 0}}, :infinity, "longest request body"},
      {:connections, count(), connections(), "most client connections at once",
       shown: "see below"},
      {:connections_per_client, count(), :infinity,
       "most of them from one address (IPv6: from one /64 network)"},
      {:requests_per_connection, count(), :infinity,
       "requests on a client connection before it is closed"},
      {:held_requests, {"an integer", 0}, 256,
       "most requests at once that `timeouts.hold` keeps waiting"},
      {:body_rate, count(), 240,
       "bytes per second below which a client that sends or takes a body uses up its `idle` time instead of renewing it with every byte"},
      {:buffer_bytes, {"bytes", 0}, 33_554_432,
       "memory for long buffers and for what HTTP/2 keeps, over all connections; beyond it buffers are small, see below"}
    ]
  end

  defp count, do: {:or, :infinity, {"an integer", 1}}

  @reserve 128
  @most 65_536

  defp connections do
    descriptors = :erlang.system_info(:check_io) |> List.flatten() |> Keyword.get(:max_fds, 1_024)
    (descriptors - @reserve) |> div(3) |> max(64) |> min(@most)
  end

  defp workers, do: System.schedulers_online() |> div(4) |> max(1) |> min(Type.max_workers())

  defp telemetry do
    [{:sample, :share, false, "share of the requests that become events"}]
  end

  defp access_log do
    [
      {:format, {:in, [:common, :combined, :json, :logfmt]}, :combined, "of a line"},
      {:to, {:or, :logger, :path}, :logger, "where lines go"},
      {:query, @flag, false, "whether query strings are logged"}
    ]
  end

  defp metrics do
    [
      {:port, {:or, nil, {"an integer", 0..65_535}}, nil, "a port of their own"},
      {:ip, :address, {127, 0, 0, 1}, "the address of that port"},
      {:host, {:or, nil, :host}, nil, "a host behind the gateway, instead of a port"}
    ]
  end

  @doc "All options, as maps with the keys `:key`, `:type`, `:default`, `:doc`, `:native?` and `:shown`."
  def all do
    options(false, [
      {:port, {"an integer", 0..65_535}, 4_000,
       "port to listen on; 0 picks a free one, see `ExServiceMeshRouter.port/0`", native: true},
      {:ip, :addresses, :loopback,
       "addresses to listen on; `:loopback` is 127.0.0.1 and ::1, `:any` is everything, IPv4 and IPv6"},
      {:server, {:or, nil, @flag}, nil, "whether to listen at all",
       shown: "as Phoenix: `config :phoenix, :serve_endpoints`, else `false`"},
      {:workers, :workers, workers(),
       "threads of the data plane; each takes one dirty IO scheduler, of which all gateways of a VM together leave two to file IO",
       native: true,
       values: "an integer from 1 to the number of dirty IO schedulers less two",
       shown: "a quarter of the schedulers online, at least 1"},
      {:services, :services, %{}, "services that are no Phoenix endpoints of this system",
       values: "a map of host to upstream, `#{Upstream.accepted()}`"},
      {:discover, :discover, true, "which Phoenix endpoints get a route"},
      {:private_listeners, :private_listeners, :auto,
       "which endpoints get a private listener instead of one of their own, see below"},
      {:default, {:or, nil, :host}, nil,
       "host whose service answers for unknown hosts; without it they get a 404"},
      {:dev_domain, :domain, dev_domain(),
       "each endpoint also answers to the name of its application below this domain (`auth_web`: auth.localhost), and so do its tenants",
       shown: "`\"localhost\"` in development (`MIX_ENV=dev`), else `nil`"},
      {:index, :index, :auto,
       "a page with all services, for hosts that nobody has and for the gateway's own address; `:auto` is development only, and only loopback sees it, unless others are allowed"},
      {:doctor, :doctor, true,
       "what is wrong with the gateway's surroundings is named in the log, on the index, and by `mix mesh.doctor`; see `ExServiceMeshRouter.Doctor`"},
      {:trusted_proxies, {:list, :cidr}, [], "peers whose forwarded header fields are believed",
       native: true},
      {:proxy_protocol, {:in, [:v1, :v2, :any, nil]}, nil,
       "PROXY protocol header with which trusted peers must announce their clients",
       native: true},
      {:timeouts, keys(true, timeouts()), [], "how long things may take", native: true},
      {:limits, keys(true, limits()), [], "how much there may be", native: true},
      {:request_id, @flag, true,
       "keep a client's `X-Request-Id` if Plug.RequestId would, else make one", native: true},
      {:trace, {:in, [:start, nil]}, nil,
       "begin a W3C trace (`traceparent`) where a request brings none; others pass untouched",
       native: true},
      {:server_timing, @flag, false, "tell clients by `Server-Timing` where the time went",
       native: true},
      {:telemetry, {:switch, keys(false, telemetry()), "[sample: 0.01] or false"}, [],
       "see `ExServiceMeshRouter.Telemetry`"},
      {:access_log,
       {:switch, keys(false, access_log()), ~s|false or [format: :combined, to: "/path"]|}, false,
       "a line for every request, see `ExServiceMeshRouter.AccessLog`"},
      {:metrics,
       {:switch, {:either, :port, :host, keys(false, metrics())},
        ~s|false, [port: 9568] or [host: "..."]|}, false,
       "where `/metrics` is served, see `ExServiceMeshRouter.Prometheus`"}
    ])
  end

  @doc "The default of `dev_domain`."
  def dev_domain, do: if(Environment.development?(), do: "localhost")

  defp keys(native?, list) do
    [%{key: key, default: default} | _] = options = options(native?, list)
    {:keys, options, "a keyword list such as #{inspect([{key, default}])}"}
  end

  defp options(native?, list) do
    for entry <- list do
      [key, type, default, doc | more] = Tuple.to_list(entry)
      more = List.flatten(more)

      %{
        key: key,
        type: type,
        default: default,
        doc: doc,
        native?: Keyword.get(more, :native, native?),
        values: more[:values] || Type.expected(type),
        shown: more[:shown] || "`#{inspect(default)}`"
      }
    end
  end

  @doc "The options as a Markdown table."
  def table do
    rows = for option <- all(), row <- [{option, ""} | members(option)], do: row(row)
    "| key | values | default | meaning |\n| --- | --- | --- | --- |\n#{rows}"
  end

  defp members(%{key: key, type: type}), do: for(it <- Type.members(type), do: {it, "#{key}: "})

  defp row({option, of}),
    do: "| `#{of}#{option.key}` | #{option.values} | #{option.shown} | #{option.doc} |\n"

  @doc "The typespec of an option, as quoted code."
  def spec do
    [option] = Type.spec({:keys, all(), nil})
    option
  end

  @doc "Checks all options: `{values, mistakes}`, the values with the defaults filled in."
  def check(given) do
    options = all()

    # `nil` is no value, except where it switches off what is on by default.
    unset = for %{key: key} <- options, key != :dev_domain, do: {key, nil}
    Type.read_options(options, given -- unset)
  end

  @doc "What the data plane is told of checked values; `:infinity` becomes `nil`."
  def native(values, options \\ all()) do
    for %{native?: true, key: key, type: type} <- options, into: %{} do
      case {type, values[key]} do
        {{:keys, members, _expected}, values} -> {key, native(values, members)}
        {_type, :infinity} -> {key, nil}
        {_type, value} -> {key, value}
      end
    end
  end
end
