defmodule ExServiceMeshRouter.Config do
  @moduledoc """
  Validates `config :ex_service_mesh_router` and fills in the defaults.

  #{ExServiceMeshRouter.Config.Options.table()}

  Times are in milliseconds. All options are validated when the application starts; one
  `ExServiceMeshRouter.ConfigError` reports every mistake.

      config :ex_service_mesh_router,
        port: 4000,
        services: %{"legacy.local" => "http://127.0.0.1:9001", "users.local" => "h2c://127.0.0.1:50051"},
        grpc: %{MyApp.GRPC.Endpoint => "grpc.local"},
        timeouts: [response: 60_000]

  ## When it listens

  The gateway follows the rule of Phoenix endpoints. It listens under `mix phx.server` (or
  `iex -S mix phx.server`) and with `server: true`, which a release usually sets like this:

      # config/runtime.exs
      if System.get_env("PHX_SERVER") do
        config :ex_service_mesh_router, server: true
      end

  Do not set `server: false` in the other case: it also applies under `mix phx.server`.

  Otherwise (`mix test`, `mix ecto.migrate`, `iex -S mix`) the gateway does not start and does not
  load the NIF.

  ## Names in development

  With `dev_domain` (`"localhost"` in development), an endpoint also answers to the name of its
  application without `_web`: `auth_web` to `auth.localhost`, `my_shop_web` to `my-shop.localhost`,
  and its tenants to `tenant1.auth.localhost`. Browsers and curl resolve every name below `localhost`
  to this machine, so the hosts file needs no entries. The name of a second endpoint of an application
  also has the parts of its module: `AuthWeb.Admin.Endpoint` answers to `auth-admin.localhost`. A
  configured host takes precedence over a derived one.

  Phoenix generates `url: [host: "localhost"]` for every application. If exactly one endpoint has that
  host, the endpoint answers for it, as it would without a gateway. If several have it, none of them
  gets it, whether they are up or not: `http://localhost:4000` then shows the index. Two endpoints
  with any other host in common are a conflict, and the log names both.

  Links that such an endpoint generates (`url(~p"/")`, mails, redirects to other hosts) would also
  lead to `localhost`. In development, the gateway therefore sets the host of the links if the endpoint
  has a private listener: `AuthWeb.Endpoint.url()` is `"http://auth.localhost:4000"`. An endpoint with
  a port of its own keeps its `url:`, and `mix mesh.doctor` prints the line to add.

  ## The index

  The index is a page that lists the services with their hosts, upstreams, state, and the doctor's
  findings. It answers for unknown hosts (with status 404 and the most similar known host), for
  `localhost`, and for the gateway's addresses, as HTML, text or JSON according to `Accept`. A
  configured `default` and an endpoint whose host is `localhost` take precedence; `mesh.localhost`
  always shows the index.

  `index: :auto` shows it in development, `true` always, `false` never. Only clients on this machine
  and in the networks of `index: [allow: ["10.1.0.0/16"]]` see it; all others get a plain 404. The
  address of a client is the one that endpoints see in `X-Forwarded-For`. Behind a proxy this needs
  `trusted_proxies`: without it, every client has the proxy's address.

  Under a host that could belong to someone else (`rebound.example.com`) the answer is a link to the
  index. Otherwise a web site could point its name to your machine and read the page (DNS rebinding).
  The page is shown under addresses, names without a dot, names below `localhost`, `local`, `test`,
  `internal`, `lan`, `home`, and siblings of a known host whose parent domain has three or more labels.

  ## Endpoints without a port

  An endpoint behind the gateway needs no port. With `private_listeners: :auto`, an endpoint that
  serves by Phoenix's rule (`server: true`, or `mix phx.server`) and has no `http:` gets a private
  listener from its own adapter: a Unix socket in a directory that only this user can enter. It is a
  free port of 127.0.0.1 instead if no such directory can be made, or if the adapter is neither Bandit
  nor Cowboy and the endpoint is configured with a port. The listener is a child of the endpoint.

  With Bandit and Cowboy, a private listener behaves like a port of the endpoint: `conn.remote_ip`,
  `conn.scheme`, `conn.host` and `conn.port` are those of the client, and so is the address in
  `Plug.Conn.get_peer_data/1` and in the `:peer_data` of sockets (the port is 0). Telemetry events of
  Bandit around a request have 127.0.0.1 as peer.

  An endpoint that is configured with the gateway's port (every generated application has 4000) or
  with the port of another endpoint gets a private listener instead, with the other options of its
  `http:`. The log has one line about it. If the endpoint started before the gateway, the gateway
  stops the endpoint's listener and takes the port. To keep an endpoint reachable past the gateway,
  give it a port of its own.

    * `:auto` - as above. `server: false` is respected: in a release with roles it keeps an endpoint
      off a node
    * `:all` - every endpoint gets a private listener, even with `server: false` (as in an umbrella
      that was set up for main_proxy); the endpoints' own ports are not used
    * a list of endpoints - as `:all` for these, and `:never` for the others
    * `:never` - no endpoint gets one. The log or the error names an endpoint that has the gateway's port

  The gateway removes `http:` from the settings of such endpoints and adds its port to `url:` if
  there is none, so that links lead to the gateway. When it stops, it restores the settings.

  ## Without a socket

  With `in_vm: :auto`, or `in_vm: [AuthWeb.Endpoint]`, requests for endpoints that Bandit serves do not pass
  through a socket. The data plane hands each one to a process of this VM, which runs Bandit's own
  pipeline: plugs, telemetry events, logs and errors are those of Bandit. WebSockets still use the
  endpoint's socket, and so does every endpoint that does not fit: another server than Bandit, TLS, a
  transport of your own, or a version of Bandit that the gateway does not know. `explain/1`,
  `mix mesh.routes` and the index say which way an endpoint takes, and why.

  The main differences from a Bandit of its own (the guide "Deployment" lists all):

    * a process for each request, not for each connection. Messages, process dictionary and Logger
      metadata of one request cannot reach the next
    * `conn.remote_ip`, the scheme, the host, the port and the HTTP version are the client's, also for
      an endpoint with a port of its own
    * limits of heads and `max_requests` are the gateway's, not those of `http_1_options`
    * there are no `[:thousand_island, ...]` events. Those of Bandit (`[:bandit, :request, ...]`), Phoenix
      and LiveView are emitted as before
    * the adapter's state has no socket (`conn.adapter`), which matters to code that reaches into it
    * `on_disconnect: :exit` ends the process of a request whose client leaves: it resets the connection or
      stream, or closes its connection, or only its sending side. As in Cowboy, a client that sends a request,
      closes its sending side and waits (`nc -N`) gets no response. By default it gets one. Through the
      gateway of another node only resets are noticed. Each gateway has its own option

  A request that is killed gets a 500 at once; once its client has got the head of the response, the
  connection or stream is reset. At most 1,024 requests wait for a process of an endpoint.
  A request whose client does not read holds up to 256 KiB of its response, one that its process does not
  read up to 256 KiB of its body. What is beyond 16 KiB counts in `limits: [buffer_bytes: ...]`; once that is
  used up, 16 KiB are held.

  ## Endpoints that speak HTTP/2

  With `http2: [MyAppWeb.Endpoint]` the gateway speaks HTTP/2 to the listener of this endpoint, by prior
  knowledge, as it does to gRPC servers: many requests share one connection. Bandit and Cowboy accept that on
  every listener without TLS, a private one, too. Use it for an endpoint that needs trailers, serves gRPC
  itself, or is to see HTTP/2 for another reason. HTTP/1.1 is faster for others, and `in_vm` is faster still.

  WebSockets use an extended CONNECT (RFC 8441) if the listener allows it, otherwise HTTP/1.1 on the same
  listener. Phoenix sockets need HTTP/1.1, so leave `enable_connect_protocol` of Cowboy off, as it is by
  default. An endpoint with `http_2_options: [enabled: false]` cannot be used: its requests get a 502, and the
  log and the doctor say so.

  `in_vm: :auto` leaves out the endpoints that `http2` names. Both lists must not name the same endpoint.

  ## Behind a load balancer

  `trusted_proxies` lists the peers whose `X-Forwarded-*` and `Forwarded` fields the gateway keeps and
  extends; it replaces those of all other clients. If `-Proto`, `-Host` or `-Port` has several values,
  the last one counts; without `-Port`, the port is the scheme's default. A load balancer that forwards
  TCP cannot add fields. With `proxy_protocol` it names the client in a PROXY protocol header: trusted
  peers must then begin every connection with one, and other clients must not send one.

  ## How many connections

  A client connection can take three file descriptors of the VM: the client's, the gateway's to the
  endpoint, and the endpoint's own. The default of `limits: [connections: ...]` is therefore a third
  of the descriptors that the VM may open, minus a reserve for files and the database, and at most
  65,536. The gateway then refuses connections before `accept` fails.

  The gateway keeps idle connections to endpoints for `timeouts: [upstream_idle: ...]`; each worker
  keeps at most 512 of them per address. An upstream with `h2c` speaks HTTP/2, as gRPC servers do; its
  streams share a connection. Of the upstreams of a service, a worker compares two and
  uses the one with fewer open requests of its own; for a WebSocket, the one with fewer WebSockets. An
  upstream that is added to others gets fewer requests for its first 10 seconds. One that cannot be
  connected to is tried last for about 1 second, then for 2, and so on up to 10, until it answers.

  Beyond `connections_per_client`, the gateway refuses connections of a client with a 503. Refused
  connections do not count as `connections`; at most 128 of them stay open for a moment, so that the
  client can read the answer.

  ## Memory

  An idle connection has no buffer. Long bodies go through buffers of 256 KiB, and a client that does
  not read its response keeps one. `limits: [buffer_bytes: ...]` bounds the memory of all connections
  for such buffers, for responses that wait in HTTP/2 connections, for what is queued between the gateway
  and processes (`in_vm`), and (a quarter of it) for uploads over HTTP/2. Beyond it, buffers are small:
  16 KiB for an HTTP/1.1 connection, for an HTTP/2 stream and for each direction between the gateway and
  a process, and 64 KiB for the uploads of an HTTP/2 connection. With the default, 600 downloads whose
  clients do not read take about 45 MiB. The kernel's socket buffers are not included
  (`net.ipv4.tcp_wmem` and `tcp_rmem` on Linux).

  ## Several nodes

  With `mesh: true` the gateways of all nodes of an Erlang cluster route to the endpoints of all of
  them. It needs distribution (`--name`, or `RELEASE_DISTRIBUTION=name` in a release) and whatever
  connects the nodes, such as libcluster or dns_cluster. On a node that is not distributed the log
  says so, and the gateway serves its own endpoints until the node becomes distributed.

      config :ex_service_mesh_router, mesh: [port: 4600]

  Each gateway announces the endpoints that it has found and that listen, with their configured hosts.
  It does not announce `services`, `localhost`, names that `dev_domain` derives, and endpoints that
  `services: [only: [...]]` or `[except: [...]]` leaves out. Endpoints with the same module and host
  are replicas of one service. If different endpoints have a host, the local one gets it, else the one
  on the node with the smallest name, and the log names both.

  Requests go from gateway to gateway over TLS, on `port`, with keys that each gateway makes at its
  start and that the nodes exchange over Erlang distribution. A firewall between the nodes must allow
  that port; set it, because the default is a free one. A node finds the address of another by their
  distribution connection; `advertise` is for nodes that this does not lead to, such as containers with
  mapped ports.

  A node that is stopped announces it first, and the other nodes send nothing new to it. Then it serves
  its own clients for the longer of `mesh: [lame_duck: ...]` and `timeouts: [lame_duck: ...]` before it
  drains. If only the distribution connection to a node is lost, its endpoints stay as a last resort
  for a minute.

  ## Two VMs, one port

  With `handover`, a new VM of a release can start beside the running one on the same machine and take
  its port over:

      config :ex_service_mesh_router,
        handover: [path: "/run/my_app/gateway.sock", stop: true]

  The running gateway offers its listening sockets on that Unix socket, to processes of the same user
  only. A second VM that starts with the same setting gets them, and accepts no connection before it is
  ready: all its applications have started, and its endpoints listen. Then the running gateway
  stops accepting, the new one begins, and the running one drains as described below. With `stop: true`
  it then stops its VM. The port is never closed, and connections wait in the kernel meanwhile.

  If the new VM ends before, or is not ready within `ready_timeout`, it stops with an error that says
  what was missing, and the running one goes on. If the running one ends, the new one has the sockets, and
  accepts when it is ready, at the latest after `ready_timeout`. With `take: :manual` the new VM waits, when it
  is ready, for `mix mesh.handover --take` or `ExServiceMeshRouter.Handover.take/1` as long as the other runs.
  The connections of both VMs together count towards `limits: [connections: ..., connections_per_client: ...]`;
  for the latter, those of the 1,000 clients with the most connections to the draining VM.

  The two VMs run at the same time: with distribution they need different node names, and endpoints must
  not have fixed ports of their own. A fixed port of `metrics` or `mesh` changes to the new VM when the
  running one has ended, which needs `stop: true`. Both must have the same `port`, and the new one must
  listen on all addresses of the running one. It needs Linux.

  ## Stopping

  On SIGTERM and `System.stop/0` the gateway serves for `timeouts: [lame_duck: ...]` as before, with
  `Connection: close` (GOAWAY with HTTP/2) in every response. Then it stops accepting, answers the
  clients that the kernel has already accepted, and waits up to `timeouts: [drain: ...]` for open
  requests. It closes WebSockets one after another when no request is left or half of that time is
  over: at most ten a second per worker, or faster if the time requires it. With `drain: :infinity`
  it closes them within 30 seconds; with `drain: 0` everything ends at once.
  """

  alias ExServiceMeshRouter.ConfigError
  alias ExServiceMeshRouter.Config.{Options, Type}

  @enforce_keys [:name, :ip, :ips, :port, :services, :grpc, :discover, :default]
  @enforce_keys @enforce_keys ++ [:dev_domain, :index, :doctor, :private_listeners]
  @enforce_keys @enforce_keys ++
                  [:in_vm, :http2, :timeouts, :native, :observe, :metrics, :mesh, :handover]
  defstruct @enforce_keys

  @typedoc "A validated configuration. Its fields are an implementation detail."
  @type t :: %__MODULE__{}

  @typedoc "An option of the table above, or the name of an instance, see `new/1`."
  @type option :: {:name, module()} | unquote(Options.spec())

  @doc """
  Validates options and fills in the defaults.

  `:name` is not an option of the application: it names a gateway that you start yourself, see
  `ExServiceMeshRouter.Supervisor`.
  """
  @spec new([option()] | map()) :: {:ok, t()} | {:error, ConfigError.t()}
  def new(options) do
    options = Enum.to_list(options)
    # As an atom: the configuration must not depend on the module of that name.
    {name, options} = Keyword.pop(options, :name, :"Elixir.ExServiceMeshRouter")

    case Options.check(options) do
      {values, []} -> {:ok, build(name, values)}
      {_values, mistakes} -> {:error, %ConfigError{mistakes: mistakes}}
    end
  end

  @doc "Returns whether the gateway is to listen, by Phoenix's rule."
  @spec server?([option()]) :: boolean()
  def server?(options) do
    case Keyword.get(options, :server) do
      nil -> Application.get_env(:phoenix, :serve_endpoints, false) == true
      server -> server
    end
  end

  defp build(name, values) do
    ips = ips(values.ip)
    # The argument of Native.open/1.
    native =
      values
      |> Options.native()
      |> Map.put(:ips, for(ip <- ips, do: ip |> :inet.ntoa() |> List.to_string()))
      |> Map.put(:most_workers, Type.max_workers())
      # Sockets that listen already, see Gateway.
      |> Map.merge(%{sockets: [], accepting: true, keep_queue: false})

    more = %{name: name, ips: ips, native: native, observe: observe(values)}
    struct(__MODULE__, Map.merge(values, more))
  end

  # The argument of Native.observe/3.
  defp observe(%{access_log: log, telemetry: telemetry}),
    do: %{access_log: log, sample: if(telemetry, do: telemetry.sample, else: 0.0)}

  defp ips(:loopback), do: [{127, 0, 0, 1}, {0, 0, 0, 0, 0, 0, 0, 1}]
  defp ips(:any), do: [{0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 0}]
  defp ips(list) when is_list(list), do: Enum.uniq(list)
  defp ips(tuple), do: [tuple]
end
