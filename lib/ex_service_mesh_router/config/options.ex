defmodule ExServiceMeshRouter.Config.Options do
  @moduledoc false
  # Defines all options. Validation, documentation, typespec and the term for the data plane are made
  # from these lists: a new limit or timeout is one entry here and one field of its struct in Rust.
  #
  # An entry is `{key, type, default, meaning}`, see Type, optionally followed by:
  #
  #   * `native: true` or `false` - whether the data plane gets it. The default is `true` in `timeouts`
  #     and `limits`, `false` elsewhere.
  #   * `values:`, `shown:` - the accepted values and the default as documented, if they depend on the
  #     machine or need another wording

  alias ExServiceMeshRouter.Config.{Environment, Type, Upstream}

  @flag {:in, [true, false]}

  defp timeouts do
    [
      {:connect, time(1), 2_000, "maximum time until an endpoint accepts a connection"},
      {:head, time(1), 10_000, "maximum time from the first byte of a request head to its last"},
      {:idle, time(1), 75_000,
       "maximum time that a client connection has no request, or a body makes no progress"},
      {:upstream_idle, time(1), 3_000,
       "how long the gateway keeps an unused connection to an endpoint; must be shorter than the endpoint's own timeout (Cowboy: 5 s)"},
      {:response, time(1), :infinity,
       "maximum time from the last byte of a request to the response head"},
      {:hold, time(0), hold(),
       "how long a request waits for an endpoint that restarts; with 0 it gets a 502 or 503 at once",
       shown: "`5000` in development (`MIX_ENV=dev`), else `0`"},
      {:tunnel_idle, time(1), :infinity, "maximum time that a WebSocket has no traffic"},
      {:drain, time(0), 30_000, "how long a stopping gateway waits for open requests and tunnels",
       native: false},
      {:lame_duck, {"milliseconds", 0}, 0,
       "how long a stopping gateway still accepts connections before it drains, and asks clients to use other connections; for load balancers that learn of a stop late (Kubernetes)",
       native: false}
    ]
  end

  defp time(min), do: {:or, :infinity, {"milliseconds", min}}

  # A recompiled endpoint restarts. In production, a load balancer should see the failure.
  defp hold, do: if(Environment.development?(), do: 5_000, else: 0)

  defp limits do
    [
      {:head_bytes, {"bytes", 1_024..16_777_216}, 65_536,
       "maximum size of a request or response head"},
      {:header_count, {"an integer", 8..512}, 100, "maximum number of header fields in a head"},
      {:body_bytes, {:or, :infinity, {"bytes", 0}}, :infinity, "maximum size of a request body"},
      {:connections, count(), connections(), "maximum number of client connections",
       shown: "see below"},
      {:connections_per_client, count(), :infinity,
       "maximum number of connections from one address (IPv6: from one /64 network)"},
      {:requests_per_connection, count(), :infinity,
       "number of requests after which the gateway closes a client connection"},
      {:held_requests, {"an integer", 0}, 256,
       "maximum number of requests that wait during `timeouts.hold`"},
      {:body_rate, count(), 240,
       "minimum bytes per second of a body; a client that sends or reads more slowly uses up its `idle` time, which every byte renews otherwise"},
      {:buffer_bytes, {"bytes", 0}, 33_554_432,
       "memory of all connections for large buffers, HTTP/2 and `in_vm`; beyond it buffers are small, see below"}
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
    [{:sample, :share, false, "share of the requests that emit an event"}]
  end

  defp access_log do
    [
      {:format, {:in, [:common, :combined, :json, :logfmt]}, :combined, "format of a line"},
      {:to, {:or, :logger, :path}, :logger, "a file, or Logger"},
      {:query, @flag, false, "whether lines contain query strings"}
    ]
  end

  defp metrics do
    [
      {:port, {:or, nil, {"an integer", 0..65_535}}, nil, "port of a separate listener"},
      {:ip, :address, {127, 0, 0, 1}, "address of that listener"},
      {:host, {:or, nil, :host}, nil, "host behind the gateway, instead of a port"}
    ]
  end

  defp mesh do
    [
      {:port, {"an integer", 0..65_535}, 0,
       "port for the other nodes' gateways; 0 picks a free one, set one for a firewall"},
      {:ip, {:or, nil, :addresses}, nil, "addresses to listen on for other nodes",
       shown: "those of Erlang distribution: kernel's `inet_dist_use_interface`, else all"},
      {:advertise, {:or, nil, :advertise}, nil,
       "where other nodes reach this one if they cannot find it out (port mapping, several networks)"},
      {:services, {:or, :all, :mesh_services}, :all, "which endpoints other nodes may use"},
      {:prefer, :prefer, {:local, 2},
       "`{:local, n}` sends a request to another node only if this one has more than `n` requests more in flight; `:none` treats all nodes alike"},
      {:lame_duck, {"milliseconds", 0}, 0,
       "how long a stopping gateway still serves its clients after the other nodes have stopped sending to it"}
    ]
  end

  defp handover do
    [
      {:path, {:or, nil, :socket_path}, nil,
       "socket where a gateway offers its port, in a directory that only this user can enter",
       values: Type.expected(:socket_path), shown: "required"},
      {:stop, @flag, false,
       "whether the VM stops after its gateway was replaced and has drained"},
      {:ready_timeout, {"milliseconds", 1}, 60_000,
       "how long a new VM may take until its endpoints serve; then it stops, and the running one goes on"},
      {:take, {:in, [:ready, :manual]}, :ready,
       "when a new VM takes the port over: once it is ready, or when it is told to (`mix mesh.handover --take`)"}
    ]
  end

  @doc "Returns all options as maps: `:key`, `:type`, `:default`, `:doc`, `:native?`, `:values`, `:shown`."
  def all do
    options(false, [
      {:port, {"an integer", 0..65_535}, 4_000,
       "port to listen on; 0 picks a free one, see `ExServiceMeshRouter.port/0`", native: true},
      {:ip, :addresses, :loopback,
       "addresses to listen on; `:loopback` is 127.0.0.1 and ::1, `:any` is every address, IPv4 and IPv6"},
      {:server, {:or, nil, @flag}, nil, "whether the gateway listens",
       shown: "as in Phoenix: `config :phoenix, :serve_endpoints`, else `false`"},
      {:workers, :workers, workers(),
       "threads of the data plane; each takes one dirty IO scheduler, and all gateways of a VM leave two of them to file IO",
       native: true,
       values: "an integer from 1 to the number of dirty IO schedulers minus two",
       shown: "a quarter of the schedulers online, at least 1"},
      {:services, :services, %{}, "services that are not Phoenix endpoints of this system",
       values: "a map of host to upstream, `#{Upstream.accepted()}`"},
      {:grpc, :grpc, %{},
       "gRPC servers of this VM (elixir-grpc) and their hosts; the gateway finds where they listen"},
      {:discover, :discover, true, "which Phoenix endpoints get a route"},
      {:private_listeners, :private_listeners, :auto,
       "which endpoints get a private listener in place of their own, see below"},
      {:in_vm, :in_vm, false,
       "which endpoints get their requests without a socket, from the data plane to a process of this VM; `:auto` is every endpoint that Bandit serves, see below"},
      {:http2, :endpoints, [],
       "endpoints to which the gateway speaks HTTP/2, each over its listener without TLS; see below"},
      {:on_disconnect, {:in, [:ignore, :exit]}, :ignore,
       "what happens to a request of `in_vm` whose client leaves: `:ignore` lets it run, as Bandit; `:exit` ends its process, as Cowboy, also when the client only closes its sending side",
       native: true},
      {:default, {:or, nil, :host}, nil,
       "host whose service answers for unknown hosts; without it, they get a 404"},
      {:dev_domain, :domain, dev_domain(),
       "domain below which each endpoint also answers to the name of its application (`auth_web`: auth.localhost), with its tenants",
       shown: "`\"localhost\"` in development (`MIX_ENV=dev`), else `nil`"},
      {:index, :index, :auto,
       "page with all services, for unknown hosts and the gateway's own address; `:auto` shows it in development; only loopback and the allowed networks see it"},
      {:doctor, :doctor, true,
       "report configuration mistakes in the log, on the index, and in `mix mesh.doctor`; see `ExServiceMeshRouter.Doctor`"},
      {:trusted_proxies, {:list, :cidr}, [],
       "peers whose forwarded header fields the gateway trusts", native: true},
      {:proxy_protocol, {:in, [:v1, :v2, :any, nil]}, nil,
       "version of the PROXY protocol header with which trusted peers must begin a connection",
       native: true},
      {:mesh,
       {:switch, keys(false, mesh()), "true, false, or a keyword list such as [port: 4600]"},
       false, "serve the endpoints of all nodes of the Erlang cluster, see Several nodes below"},
      {:handover,
       {:switch, {:shorthand, :path, keys(false, handover())},
        ~s|false, a path such as "/run/my_app/gateway.sock", or [path: "...", stop: true]|},
       false,
       "take the port over from the VM that has it, without a gap, see Two VMs, one port below"},
      {:timeouts, keys(true, timeouts()), [], "see the following keys", native: true},
      {:limits, keys(true, limits()), [], "see the following keys", native: true},
      {:request_id, @flag, true,
       "keep a client's `X-Request-Id` if Plug.RequestId would, otherwise generate one",
       native: true},
      {:trace, {:in, [:start, nil]}, nil,
       "start a W3C trace (`traceparent`) if a request has none; existing ones pass unchanged",
       native: true},
      {:server_timing, @flag, false,
       "add the durations of a request to its response, as `Server-Timing`", native: true},
      {:telemetry, {:switch, keys(false, telemetry()), "[sample: 0.01] or false"}, [],
       "see `ExServiceMeshRouter.Telemetry`"},
      {:access_log,
       {:switch, keys(false, access_log()), ~s|false or [format: :combined, to: "/path"]|}, false,
       "one line per request, see `ExServiceMeshRouter.AccessLog`"},
      {:metrics,
       {:switch, {:either, :port, :host, keys(false, metrics())},
        ~s|false, [port: 9568] or [host: "..."]|}, false,
       "where the gateway serves `/metrics`, see `ExServiceMeshRouter.Prometheus`"}
    ])
  end

  @doc "Returns the default of `dev_domain`."
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

  @doc "Formats the options as a Markdown table."
  def table do
    rows = for option <- all(), row <- [{option, ""} | members(option)], do: row(row)
    "| key | values | default | meaning |\n| --- | --- | --- | --- |\n#{rows}"
  end

  defp members(%{key: key, type: type}), do: for(it <- Type.members(type), do: {it, "#{key}: "})

  defp row({option, of}),
    do: "| `#{of}#{option.key}` | #{option.values} | #{option.shown} | #{option.doc} |\n"

  @doc "Returns the typespec of an option, as quoted code."
  def spec do
    [option] = Type.spec({:keys, all(), nil})
    option
  end

  @doc "Validates all options: `{values, mistakes}`, the values with the defaults filled in."
  def check(given) do
    options = all()

    # `nil` means unset, except for `dev_domain`, where it overrides the default of development.
    unset = for %{key: key} <- options, key != :dev_domain, do: {key, nil}
    {values, mistakes} = Type.read_options(options, given -- unset)
    {values, mistakes ++ in_vm_and_http2(values)}
  end

  defp in_vm_and_http2(%{in_vm: [_ | _] = in_vm, http2: [_ | _] = http2}) do
    for endpoint <- http2, endpoint in in_vm do
      %{
        key: :http2,
        value: endpoint,
        expected: "endpoints that `in_vm` does not name: requests in the VM have no protocol",
        unknown: false
      }
    end
  end

  defp in_vm_and_http2(_values), do: []

  @doc "Selects what the data plane gets of validated values; `:infinity` becomes `nil`."
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
