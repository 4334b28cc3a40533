defmodule ExServiceMeshRouter.Config do
  @moduledoc """
  The keys of `config :ex_service_mesh_router`.

  #{ExServiceMeshRouter.Config.Options.table()}

  Times are in milliseconds. The whole configuration is checked when the application starts; what
  is wrong with it is reported all at once (`ExServiceMeshRouter.ConfigError`).

      config :ex_service_mesh_router,
        port: 4000,
        services: %{"legacy.local" => "http://127.0.0.1:9001"},
        timeouts: [response: 60_000]

  ## When it listens

  As a Phoenix endpoint does: under `mix phx.server` (or `iex -S mix phx.server`), and with
  `server: true`, which is what a release sets, usually as

      # config/runtime.exs
      if System.get_env("PHX_SERVER") do
        config :ex_service_mesh_router, server: true
      end

  (not `server: false` otherwise, which would hold under `mix phx.server`, too).

  Otherwise (`mix test`, `mix ecto.migrate`, `iex -S mix`) nothing is started, and the NIF is not
  even loaded.

  ## Names in development

  With `dev_domain` (in development it is `"localhost"`), an endpoint answers, besides its own host,
  to the name of its application, without `_web`: `auth_web` to `auth.localhost`, `my_shop_web` to
  `my-shop.localhost`, tenants to `tenant1.auth.localhost`. Browsers and curl take every name below
  `localhost` for this machine, so nobody edits a hosts file. A second endpoint of an application
  adds what its module adds: `AuthWeb.Admin.Endpoint` answers to `auth-admin.localhost`. A host that
  an endpoint or service has been given in so many words always comes before a derived one.

  Phoenix generates `url: [host: "localhost"]` for every application. Where exactly one endpoint of
  the system has that host, it answers for it, as it would without a gateway: what a developer
  typed before goes on working. Where several have it, it says nothing about who is meant, and none
  of them gets it: `http://localhost:4000` is then nobody's, and not that of whichever endpoint
  comes first in the alphabet or has started first, which would send a developer to the wrong
  application without a word. It does not depend on which endpoints are up, either. Two endpoints
  with any other host in common are a conflict, and the log names both.

  Links that such an endpoint writes (`url(~p"/")`, mails, redirects to other hosts) would lead there,
  too. In development an endpoint that the gateway listens for is therefore given its own name for
  them: `AuthWeb.Endpoint.url()` is `"http://auth.localhost:4000"`. With a port of its own it keeps
  its `url:`, and `mix mesh.doctor` has the line to write.

  ## The index

  A page that says what there is: the services with their hosts, where they listen and since when,
  and what is wrong with them. It answers for hosts that nobody has (with status 404, and a hint at
  the host that was probably meant), for `localhost` and for the gateway's addresses, as HTML, text
  or JSON, by `Accept`. A configured `default` comes before it, and so does an endpoint whose host is
  `localhost`; the page is always at `mesh.localhost`.

  `index: :auto` shows it in development, `true` always, `false` never. Only this machine sees it,
  and what is named in `index: [allow: ["10.1.0.0/16"]]`, judged by the address that endpoints see in
  `X-Forwarded-For`; everybody else gets the bare 404. Behind a proxy this needs `trusted_proxies`:
  without it, every client has the proxy's address.

  A host that could be a stranger's (`rebound.example.com`) is answered with a link to the page and
  not with the page: otherwise a web site could have its name point to your machine and read it. The
  page is shown under addresses, names without a dot, names below `localhost`, `local`, `test`,
  `internal`, `lan`, `home`, and names beside a known host whose common domain has three labels or more.

  ## Endpoints without a port

  An endpoint behind the gateway needs no port that anybody else could reach, or that somebody would
  have to think of. With `private_listeners: :auto`, an endpoint that serves by Phoenix's own rule
  (`server: true`, or `mix phx.server`) and has no `http:` is given a private listener by its own
  adapter: a Unix socket in a directory that only this user can enter. Where no such directory can be
  made, or the adapter is neither Bandit nor Cowboy and the endpoint is configured with a port, it is
  a free port of the loopback address. The listener is a child of the endpoint like any other.

  With Bandit and Cowboy the endpoint cannot tell it from a port of its own: `conn.remote_ip`,
  `conn.scheme`, `conn.host` and `conn.port` are the client's, and so is the address in
  `Plug.Conn.get_peer_data/1` and in the `:peer_data` of sockets (its port is 0). Events of Bandit
  around a request have 127.0.0.1 as peer.

  The port in front belongs to the gateway. An endpoint that is configured with the same one (every
  generated application says 4000, and on a host with a single `PORT` there is nothing else to say),
  or with the port of another endpoint, gets a private listener instead, with the other options of
  its `http:`. The log says so in one line. An endpoint that has started before the gateway hands its
  port over. To keep an endpoint reachable past the gateway, give it a port of its own.

    * `:auto` - as above. `server: false` is respected: in a release with roles it keeps an endpoint
      off a node
    * `:all` - the gateway listens for every endpoint, also where it says `server: false` (as in an
      umbrella that was set up for main_proxy); the ports of the endpoints do not matter any more
    * a list of endpoints - the same for these, and nothing for the others
    * `:never` - nobody. Who wants the gateway's port is named in the log or in the error

  What the gateway takes from the settings of an endpoint (`http:`) and adds (the gateway's port in
  `url:`, unless there is one, so that links lead somewhere) is put back when it stops.

  ## Behind a load balancer

  `trusted_proxies` names the peers that speak for others: their `X-Forwarded-*` and `Forwarded`
  fields are kept and added to, everybody else's are replaced. Of several values of `-Proto`, `-Host` or
  `-Port` the last counts, and no port means that of the scheme. A load balancer that forwards TCP and
  not HTTP cannot add fields; with `proxy_protocol` it says who the client is in a PROXY protocol
  header. Trusted peers must then begin every connection with one, and nobody else may.

  ## How many connections

  A connection through the gateway can take three file descriptors of the VM: the client's, the one
  to the endpoint, and the endpoint's own. The default of `limits: [connections: ...]` is therefore
  a third of the descriptors that the VM may open, less a reserve for files and the database, and
  at most 65,536, so that a flood is refused before `accept` fails for everybody.

  Connections to endpoints are kept for the next request, for `timeouts: [upstream_idle: ...]`, and
  each worker keeps at most 512 idle ones to one address. A service with several upstreams uses them in
  turn. One that cannot be connected to is tried last for 1 second, then for 2, and so on up to 10, until
  it answers.

  `connections_per_client` refuses a client's further connections with a 503. Those that are refused
  take no place among `connections`; at most 128 at once are kept for a moment, so that the client
  can read why.

  ## Memory

  A connection on which nothing moves has no buffer. Long bodies go through buffers of 256 KiB, and
  a client that does not read its response keeps one. `limits: [buffer_bytes: ...]` is the memory that
  all connections together have for such buffers, for responses that wait in HTTP/2 connections, and (a
  quarter of it) for uploads over HTTP/2. What goes beyond it gets small buffers and works all the
  same: 16 KiB for a connection of HTTP/1.1 and for a stream of HTTP/2, and 64 KiB for the
  uploads of an HTTP/2 connection. With the default, 600 downloads whose clients do not read take about
  45 MiB. What the system keeps for their sockets comes on top (`net.ipv4.tcp_wmem` and `tcp_rmem` on Linux).

  ## Stopping

  On SIGTERM and `System.stop/0` the gateway first serves for `timeouts: [lame_duck: ...]` as before,
  with `Connection: close` (GOAWAY with HTTP/2) in every response. Then it lets no client in any more,
  answers those that the system has accepted, and waits for `timeouts: [drain: ...]` until open
  requests are through. WebSockets are closed one after another once no request is left, or half of
  that time is over: at most ten a second for each worker, or as fast as it takes to be done within
  the time. With `drain: :infinity` they are closed within 30 seconds; with `drain: 0` everything ends at once.
  """

  alias ExServiceMeshRouter.ConfigError
  alias ExServiceMeshRouter.Config.{Options, Type}

  @enforce_keys [:name, :ip, :ips, :port, :services, :discover, :default]
  @enforce_keys @enforce_keys ++ [:dev_domain, :index, :doctor, :private_listeners]
  @enforce_keys @enforce_keys ++ [:timeouts, :native, :observe, :metrics]
  defstruct @enforce_keys

  @typedoc "A checked configuration. Its fields are an implementation detail."
  @type t :: %__MODULE__{}

  @typedoc "An option of the table above, or the name of an instance, see `new/1`."
  @type option :: {:name, module()} | unquote(Options.spec())

  @doc """
  Checks options and fills in defaults.

  `:name` is not an option of the application: it names an instance that is started by hand, see
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

  @doc "Whether to listen, by Phoenix's rule."
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
