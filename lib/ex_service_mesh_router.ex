defmodule ExServiceMeshRouter do
  @moduledoc """
  Reads the state of the gateway and adds services at run time.

  The application of this dependency starts the gateway with the configuration that
  `ExServiceMeshRouter.Config` describes. Requests do not pass through this module.

  Each function takes the name of a gateway as optional first argument, for systems that start
  several (`ExServiceMeshRouter.Supervisor`). If the gateway does not run (in tests, in migrations),
  the functions that read return what a gateway without services would return.
  """

  alias ExServiceMeshRouter.{Explanation, Gateway, Native, Registry}
  alias ExServiceMeshRouter.Config.{Host, Upstream}
  alias ExServiceMeshRouter.Registry.{IndexRow, PeerState, Resolver, Service}

  @typedoc """
  A service.

    * `:name` - the endpoint's module; the host if the service is not an endpoint
    * `:hosts` - the hosts that it answers for, without the tenants below them
    * `:upstreams` - where it listens, as `"http://127.0.0.1:4001"` or `"unix:/run/app.sock"`, and
      `"h2c://127.0.0.1:50051"` or `"h2c+unix:/run/grpc.sock"` if it speaks HTTP/2; an endpoint that is
      bound to `::` has `"http://localhost:4001"`, which means 127.0.0.1 or ::1. With `mesh`, `"b@host"` is the gateway of another node
    * `:state` - `:listening` or `:not_listening`; requests for the latter get a 503
    * `:since` - when the state last changed
    * `:source` - `:endpoint` (discovered), `:config` (`services`, `grpc`), `:runtime` (`put_service/2`) or
      `:peer` (an endpoint that only other nodes have, with `mesh`)
    * `:peers` - those of the upstreams that are other nodes, with `:node`, `:state`, and the `:address`
      and the `:error` of the last connection, or `nil`. The states are

        * `:serving`
        * `:draining` - it is stopping and gets no requests
        * `:suspect` - it does not answer at the moment; others come first
        * `:unreachable` - no connection can be opened; others come first
        * `:last_resort` - Erlang distribution is not connected to it; others come first
    * `:in_vm` - `true` for an endpoint whose requests reach a process of this VM without a socket (the
      option `in_vm`); a text that says why not for one that the option names; otherwise `false`
    * `:application`, `:endpoint` - those of an endpoint, otherwise `nil`
  """
  @type service :: %{
          name: String.t(),
          hosts: [String.t()],
          upstreams: [String.t()],
          state: :listening | :not_listening,
          since: DateTime.t(),
          source: :endpoint | :config | :runtime | :peer,
          peers: [
            %{
              node: String.t(),
              state: :serving | :draining | :suspect | :unreachable | :last_resort,
              address: String.t() | nil,
              error: String.t() | nil
            }
          ],
          in_vm: boolean() | String.t(),
          application: atom() | nil,
          endpoint: module() | nil
        }

  @doc """
  Returns all services, sorted by name.

      iex> ExServiceMeshRouter.services()
      [%{name: "AuthWeb.Endpoint", hosts: ["auth.local", "auth.localhost"], state: :listening, ...}]
  """
  @spec services(module()) :: [service()]
  def services(name \\ __MODULE__) do
    running(name, [], fn ->
      links = PeerState.links(name)
      for service <- Registry.all(name), do: Service.public(service, links)
    end)
  end

  @doc """
  Routes a host, and the tenants below it, to one upstream or a list of upstreams.

  The route is active when the function returns. It replaces a service of the same host that was
  configured or put before. An endpoint that has the host loses it until `delete_service/1`, and the
  log has a warning. Returns `{:error, message}` if the host or an upstream is malformed, if a name
  has no address, or if the gateway does not run.

      :ok = ExServiceMeshRouter.put_service("legacy.local", "http://127.0.0.1:9001")
  """
  @spec put_service(module(), String.t(), String.t() | [String.t()]) :: :ok | {:error, String.t()}
  def put_service(name \\ __MODULE__, host, upstream) do
    with {:ok, host} <- host(host),
         {:ok, upstreams} <- upstreams(upstream),
         service = Service.static(host, upstreams, :runtime),
         {:ok, addresses} <- addresses(service) do
      running(name, {:error, not_running()}, fn ->
        if addresses != %{}, do: Registry.put_addresses(name, addresses)
        Registry.put(name, service)
      end)
    end
  end

  @doc """
  Removes a service that was configured or put.

  Endpoints cannot be removed: their routes follow their processes. Returns `{:error, message}` if
  there is no such service or the gateway does not run.
  """
  @spec delete_service(module(), String.t()) :: :ok | {:error, String.t()}
  def delete_service(name \\ __MODULE__, host) do
    with {:ok, host} <- host(host) do
      running(name, {:error, not_running()}, fn ->
        with :error <- Registry.delete(name, {:host, host}) do
          {:error, "there is no service #{host} that was configured or put"}
        end
      end)
    end
  end

  @doc """
  Returns the service that answers for a host, or `nil`.

  The host may be in any case and with or without a port, as in a `Host` field. The answer comes from
  the routing table of the data plane.
  """
  @spec resolve(module(), String.t()) :: service() | nil
  def resolve(name \\ __MODULE__, host) when is_binary(host) do
    running(name, nil, fn ->
      with {_rule, matched, _name} <-
             name |> Gateway.ref() |> Native.resolve(host) |> IndexRow.hide(),
           %Service{} = service <- Registry.find(name, matched) do
        Service.public(service, PeerState.links(name))
      end
    end)
  end

  @doc """
  Explains what the gateway does with a host: the rule, the service, its upstreams, why requests avoid
  some of the nodes that have it (`mesh`), whether its requests need a socket (`in_vm`), and why the other
  services do not match.

      iex> ExServiceMeshRouter.explain("tenant1.auth.local:4000")
      #ExServiceMeshRouter.Explanation<
        tenant1.auth.local -> AuthWeb.Endpoint at http://127.0.0.1:4001
        rule: suffix, auth.local is the longest host above tenant1.auth.local
        not BillingWeb.Endpoint: billing.local is another name
      >

  Returns an `ExServiceMeshRouter.Explanation`, or `nil` if the gateway does not run.
  """
  @spec explain(module(), String.t()) :: Explanation.t() | nil
  def explain(name \\ __MODULE__, host) when is_binary(host) do
    running(name, nil, fn ->
      claims = Registry.claims(name)
      resolved = name |> Gateway.ref() |> Native.resolve(host) |> IndexRow.hide()
      Explanation.new(host, resolved, claims, PeerState.links(name))
    end)
  end

  @doc "Returns the port that the gateway listens on, or `nil` if it does not run."
  @spec port(module()) :: :inet.port_number() | nil
  def port(name \\ __MODULE__) do
    running(name, nil, fn ->
      [{_ip, port} | _] = Gateway.addresses(name)
      port
    end)
  end

  @doc """
  Returns the statistics since the start of the gateway, as plain maps.

    * `:gateway` - client connections, and requests that were refused before they had a service
    * `:services` - for each service name: requests by method (`:methods`), responses by status
      class, gRPC calls by status (`:grpc`), requests in flight, body bytes, tunnels, requests that another node served
      (`:sent_to_peers`), connections to the endpoint, failures by side (`:upstream_errors`, ...) and by
      kind (`:errors`), the fault of the last response that was not valid HTTP (`:last_bad_response`, or
      `nil`), and `:latency`
    * `:total` - the sums over all services, including removed ones; together with the requests that
      `:gateway` answered itself, these are all requests
    * `:from_peers` - with `mesh`, the same for requests that the gateways of other nodes have sent here.
      Neither `:services` nor `:total` includes them, so that a sum over all nodes counts each request once
    * `:latency_buckets` - the upper bounds of the `:buckets` of every histogram

  `:latency` has three histograms: `:total` from the request head to the end of the response,
  `:first_byte` from the request sent to the endpoint until its response head, and `:gateway` for the
  time that the gateway itself took. Each has `:count`, `:sum`, `:max`, `:p50`, `:p90`, `:p99`,
  `:p999`, and the cumulative `:buckets`. Times are in nanoseconds. A quantile is off by at most 1/16
  of its value (below 2 µs by at most 128 ns); the other values are exact.

  Requests to the index (the page, its stream, `mix mesh.top`) count as `requests_unrouted` of
  `:gateway`. With the index on, `:max` and the quantiles of `:total` include them.

  A client that disconnects before the end of its response counts as `client_gone` in `:errors`, on
  the side `:downstream_errors`. A client that only closes its sending side still gets its response.

  Sizes are in bytes. Keys that end in `_open`, and `:in_flight`, are gauges; all others are counters.
  Counting is always on. If the gateway does not run, the maps are empty.

      iex> ExServiceMeshRouter.stats().services["AuthWeb.Endpoint"].latency.total.p99
      1_835_008
  """
  @spec stats(module()) :: map()
  def stats(name \\ __MODULE__) do
    running(name, %{gateway: %{}, services: %{}}, fn ->
      name |> Gateway.ref() |> Native.stats() |> IndexRow.hide_stats()
    end)
  end

  defp host(host) do
    with :error <- Host.normalise(host) do
      {:error, "host: got #{inspect(host)}, expected a host name without a port"}
    end
  end

  defp upstreams(upstream) do
    with {:error, part} <- Upstream.parse(upstream) do
      {:error, "upstream: got #{inspect(part)}, expected #{Upstream.accepted()}"}
    end
  end

  # The caller waits for the name server, so that the registry does not.
  defp addresses(service) do
    Enum.reduce_while(Resolver.used([service]), {:ok, %{}}, fn name, {:ok, known} ->
      case Resolver.lookup(name) do
        {:ok, ips} -> {:cont, {:ok, Map.put(known, name, ips)}}
        :error -> {:halt, {:error, "upstream: #{name} has no address"}}
      end
    end)
  end

  defp not_running,
    do: "the gateway is not running; it listens under `mix phx.server` or with `server: true`"

  defp running(name, otherwise, fun) do
    if Process.whereis(Module.concat(name, Supervisor)), do: fun.(), else: otherwise
  catch
    :exit, {:noproc, _} -> otherwise
  end
end
