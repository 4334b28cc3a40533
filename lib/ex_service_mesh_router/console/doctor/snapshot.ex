defmodule ExServiceMeshRouter.Doctor.Snapshot do
  @moduledoc false
  # Gathers the input of the checks, of a running system or of a configuration.

  alias ExServiceMeshRouter.{Config, Gateway, Registry}
  alias ExServiceMeshRouter.Config.{Environment, Host, Upstream}
  alias ExServiceMeshRouter.Doctor.{Endpoint, Nodes}
  alias ExServiceMeshRouter.Endpoint.{Candidates, DevNames, Settings}
  alias ExServiceMeshRouter.Registry.{Service, Table}

  # config: a validated Config. port: of the gateway. server?: whether the gateway listens. conflicts:
  # `{host, winner, loser}`. shared: hosts that several endpoints have and none gets. umbrella, holder:
  # only in `mix mesh.doctor`. nodes: of a running mesh, see Nodes.
  @enforce_keys [:config, :running?, :server?, :port, :endpoints, :services, :conflicts, :shared]
  defstruct @enforce_keys ++ [:development?, :release?, :os, :umbrella, :holder, :nodes]

  @doc "Returns the snapshot of a running gateway, or `nil`. `more` overrides fields, for tests."
  def running(name, more \\ []) do
    if Process.whereis(Module.concat(name, Supervisor)) do
      config = Gateway.config(name)
      [{_ip, port} | _] = Gateway.addresses(name)
      {_claims, table, _default} = Registry.claims(name)

      gather(
        config,
        [running?: true, server?: true, port: port, nodes: Nodes.gather(name)] ++ more,
        Registry.all(name),
        table
      )
    end
  catch
    :exit, _ends_meanwhile -> nil
  end

  @doc "Returns `{:ok, snapshot}` of a configuration, the options of the application."
  def configured(options, more \\ []) do
    with {:ok, config} <- Config.new(options) do
      services = services(config)

      table =
        services |> Map.new(&{&1.key, &1}) |> Table.build(%{}, DevNames.shared(config.dev_domain))

      server? = Config.server?(options)
      given = [running?: false, server?: server?, port: config.port] ++ more
      {:ok, gather(config, given, services, table)}
    end
  end

  defp gather(config, given, services, table) do
    shared = Map.keys(table.shared)

    endpoints =
      for {endpoint, application} <- candidates(config.discover) do
        service = Enum.find(services, &(&1.key == {:endpoint, endpoint}))
        Endpoint.new(endpoint, application, service, shared)
      end

    struct!(
      %__MODULE__{
        config: config,
        running?: nil,
        server?: nil,
        port: nil,
        endpoints: endpoints,
        services: services,
        conflicts: Enum.sort(table.conflicts),
        shared: shared,
        development?: Environment.development?(),
        release?: release?(),
        os: :os.type() |> elem(1)
      },
      given
    )
  end

  @doc "Returns whether this system is a release."
  def release?,
    do: System.get_env("RELEASE_NAME") != nil and Process.whereis(Mix.Supervisor) == nil

  defp candidates(false), do: []
  defp candidates(discover), do: discover |> Candidates.all() |> Enum.sort()

  # The services of a system in which all endpoints listen.
  defp services(config) do
    static =
      for {host, upstreams} <- config.services, do: Service.static(host, upstreams, :config)

    grpc = for {server, host} <- config.grpc, do: Service.grpc(server, host, [])

    found =
      for {endpoint, application} <- candidates(config.discover) do
        hosts =
          with {:ok, host} <- Host.normalise(host(endpoint, application)),
               do: [host],
               else: (_ -> [])

        derived = DevNames.hosts(application, endpoint, config.dev_domain)
        Service.endpoint(endpoint, application, hosts, [Upstream.tcp({127, 0, 0, 1}, 1)], derived)
      end

    static ++ grpc ++ found
  end

  defp host(endpoint, application) do
    application
    |> Settings.configured(endpoint)
    |> Settings.url()
    |> Settings.host()
  end
end
