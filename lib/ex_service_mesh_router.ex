defmodule ExServiceMeshRouter do
  @moduledoc """
  One port in front, every Phoenix endpoint of the system behind it.

  The gateway is started by this dependency's application, with the configuration that
  `ExServiceMeshRouter.Config` describes. This module is how to ask it, and how to add services at
  run time.

  All functions take the name of a gateway as an optional first argument, for those who start more
  than one (`ExServiceMeshRouter.Supervisor`). Where no gateway runs (in tests, in migrations), the
  functions that ask answer as if it had no services.
  """

  alias ExServiceMeshRouter.{Explanation, Gateway, Native, Registry}
  alias ExServiceMeshRouter.Config.{Host, Upstream}
  alias ExServiceMeshRouter.Registry.{IndexRow, Resolver, Service}

  @typedoc """
  A service.

    * `:name` - the endpoint's module, or the host of a service that is none
    * `:hosts` - the hosts it answers for, tenants of these not listed
    * `:upstreams` - where it listens, as `"http://127.0.0.1:4001"` or `"unix:/run/app.sock"`; an
      endpoint that is bound to `::` is at `"http://localhost:4001"`, that is 127.0.0.1 or ::1
    * `:state` - `:listening` or `:not_listening`; requests for the latter get a 503
    * `:since` - when it came into this state
    * `:source` - `:endpoint` (found), `:config` (`services`) or `:runtime` (`put_service/2`)
    * `:application`, `:endpoint` - of an endpoint, `nil` for others
  """
  @type service :: %{
          name: String.t(),
          hosts: [String.t()],
          upstreams: [String.t()],
          state: :listening | :not_listening,
          since: DateTime.t(),
          source: :endpoint | :config | :runtime,
          application: atom() | nil,
          endpoint: module() | nil
        }

  @doc """
  All services, sorted by name.

      iex> ExServiceMeshRouter.services()
      [%{name: "AuthWeb.Endpoint", hosts: ["auth.local", "auth.localhost"], state: :listening, ...}]
  """
  @spec services(module()) :: [service()]
  def services(name \\ __MODULE__) do
    running(name, [], fn -> name |> Registry.all() |> Enum.map(&Service.public/1) end)
  end

  @doc """
  Routes a host, and the tenants below it, to an upstream or a list of them.

  When it returns, the gateway routes by it. A service of the same host that was configured or put
  before is replaced; an endpoint that has the host loses it (with a warning) until
  `delete_service/1`.

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
  Removes a service that was configured or put. Endpoints cannot be removed: they come and go with
  their process.
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
  The service that answers for a host (as in a `Host` field: any case, with or without a port), or
  `nil`. What the gateway would do, asked of the table that it routes by.
  """
  @spec resolve(module(), String.t()) :: service() | nil
  def resolve(name \\ __MODULE__, host) when is_binary(host) do
    running(name, nil, fn ->
      with {_rule, _matched, service} <-
             name |> Gateway.ref() |> Native.resolve(host) |> IndexRow.hide(),
           %Service{} = service <- Registry.find(name, service) do
        Service.public(service)
      end
    end)
  end

  @doc """
  What the gateway does with a host, and why: the rule, the service, its upstreams, and what speaks
  against the other services.

      iex> ExServiceMeshRouter.explain("tenant1.auth.local:4000")
      #ExServiceMeshRouter.Explanation<
        tenant1.auth.local -> AuthWeb.Endpoint at http://127.0.0.1:4001
        rule: suffix, auth.local is the longest host above tenant1.auth.local
        not BillingWeb.Endpoint: billing.local is another name
      >

  Its fields are those of `ExServiceMeshRouter.Explanation`. `nil` where no gateway runs.
  """
  @spec explain(module(), String.t()) :: Explanation.t() | nil
  def explain(name \\ __MODULE__, host) when is_binary(host) do
    running(name, nil, fn ->
      claims = Registry.claims(name)
      resolved = name |> Gateway.ref() |> Native.resolve(host) |> IndexRow.hide()
      Explanation.new(host, resolved, claims)
    end)
  end

  @doc "The port it listens on, or `nil`."
  @spec port(module()) :: :inet.port_number() | nil
  def port(name \\ __MODULE__) do
    running(name, nil, fn ->
      [{_ip, port} | _] = Gateway.addresses(name)
      port
    end)
  end

  @doc """
  What has been counted since the start, as plain maps.

    * `:gateway` - connections of clients, and requests that were refused before they had a service
    * `:services` - by the name of the service: requests by method (`:methods`) and responses by
      status class, requests in flight, bytes of bodies, tunnels, connections to the endpoint,
      failures by side (`:upstream_errors`, ...) and by kind (`:errors`), what was wrong with the
      last response that was no HTTP (`:last_bad_response`, or `nil`), and `:latency`
    * `:total` - the same over all services, those included that are gone; with what `:gateway`
      has answered itself, these are all requests
    * `:latency_buckets` - upper ends of the `:buckets` of every histogram

  In `:latency` are three histograms: `:total` from the request head to the end of the response,
  `:first_byte` the endpoint's share of it until its response head, `:gateway` the gateway's own.
  Each has `:count`, `:sum`, `:max`, `:p50`, `:p90`, `:p99`, `:p999`, and `:buckets`, which count up
  to each of `:latency_buckets`. Times are in nanoseconds. Quantiles are read from fine buckets and
  are off by at most 1/16 of themselves (and never more than 128 ns below 2 µs); the others are exact.

  What the index answers (the page, its stream, `mix mesh.top`) is no service's, and counts with
  `requests_unrouted` of `:gateway`, as it would without an index. Only `:max` and the quantiles of
  `:total` have the index in them, where it is on.

  A client that went away before its response was through is `client_gone` of `:errors`, on the side
  `:downstream_errors`. It has to be seen to go: one that has only closed its sending side may still
  be reading, and is answered.

  Sizes are in bytes. What ends in `_open`, and `:in_flight`, goes up and down; all else only up.
  Counting costs next to nothing and is always on. Where no gateway runs, the maps are empty.

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

  # In the caller's time: the registry must not wait for a name server.
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
