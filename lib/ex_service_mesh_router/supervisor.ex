defmodule ExServiceMeshRouter.Supervisor do
  @moduledoc """
  Supervises one gateway: its listener, its registry of services, its workers, its discovery.

  The application starts one from its configuration. You can start further ones in a supervision tree,
  with the keys of `ExServiceMeshRouter.Config` and a name:

      children = [
        {ExServiceMeshRouter.Supervisor, name: MyApp.AdminGateway, port: 4100}
      ]

  It listens when it starts, whatever `server` is. The functions of `ExServiceMeshRouter` take its name
  as first argument: `ExServiceMeshRouter.services(MyApp.AdminGateway)`.

  Start it before the endpoints that it routes to: a supervisor stops its children in reverse order, and
  the gateway should stop last.
  """

  use Supervisor

  alias ExServiceMeshRouter.{
    Config,
    Discovery,
    Doctor,
    Gateway,
    Handover,
    Listeners,
    Mesh,
    Metrics,
    Registry
  }

  alias ExServiceMeshRouter.Console.Index
  alias ExServiceMeshRouter.Discovery.GrpcServers
  alias ExServiceMeshRouter.Gateway.{Guard, Reporter, Shutdown, Store, Worker}
  alias ExServiceMeshRouter.Listeners.Contention
  alias ExServiceMeshRouter.Registry.Resolver
  alias ExServiceMeshRouter.Systemd.{Activation, Startup}

  @doc """
  Starts a gateway.

  Returns `{:error, %ExServiceMeshRouter.ConfigError{}}` for wrong options and
  `{:error, %ExServiceMeshRouter.ListenError{}}` if the gateway cannot listen.
  """
  @spec start_link(keyword()) :: {:ok, pid()} | {:error, term()}
  def start_link(options \\ []) do
    with {:ok, config} <- Config.new(options) do
      Supervisor.start_link(__MODULE__, config, name: Module.concat(config.name, Supervisor))
      |> readable()
    end
  end

  @doc false
  def child_spec(options) do
    %{
      id: Keyword.get(options, :name, __MODULE__),
      start: {__MODULE__, :start_link, [options]},
      type: :supervisor
    }
  end

  defp readable({:error, {:shutdown, {:failed_to_start_child, Gateway, {:shutdown, reason}}}}),
    do: {:error, reason}

  defp readable({:error, {:shutdown, {:failed_to_start_child, _child, {:shutdown, error}}}})
       when is_exception(error),
       do: {:error, error}

  defp readable(result), do: result

  # This process owns the data plane and the Store. Parts of the control plane run below a Guard each,
  # so that their failures do not count here.
  #
  # The children stop in reverse order: discovery and the index before the workers drain; the mesh, which
  # the last requests may need, the registry, the private listeners and the reporter after that.
  @impl true
  def init(config) do
    await_orphans(config.name)
    Store.new(config.name)

    calls = %{
      free: &Contention.free/1,
      leave: &Mesh.leave/1,
      sockets: &(Handover.sockets(&1) || Activation.sockets(&1)),
      opened: &Handover.opened/1
    }

    children =
      Enum.map(Handover.first(config), &guard(config, &1)) ++
        [{Gateway, {config, calls}}, guard(config, Reporter), {Listeners, config}] ++
        [guard(config, Registry), guard(config, Resolver)] ++
        Enum.map(Mesh.parts(config), &guard(config, &1)) ++
        workers(config) ++
        Enum.map(Handover.last(config), &guard(config, &1)) ++
        if(config.discover == false, do: [], else: [guard(config, Discovery)]) ++
        if(config.grpc == %{}, do: [], else: [guard(config, GrpcServers)]) ++
        if(config.index, do: [guard(config, Index)], else: []) ++
        if(config.metrics, do: [guard(config, Metrics)], else: []) ++
        doctor(config) ++
        shutdown(config) ++
        if(Startup.wanted?(), do: [guard(config, Startup)], else: [])

    # A failing worker exits at most once a second. The other children exit only when they are killed:
    # this allows three kills of each in a second.
    intensity = 3 * length(children)
    options = [strategy: :one_for_one, max_restarts: intensity, max_seconds: 1]
    {:ok, {flags, specs}} = Supervisor.init(children, options)

    # When the data plane is lost (see Gateway), this supervisor ends, and its supervisor restarts it.
    {:ok, {Map.put(flags, :auto_shutdown, :any_significant), specs}}
  end

  # The children of a killed supervisor are still ending and have their names.
  @orphan 5_000

  defp await_orphans(name) do
    for part <-
          [Gateway, Reporter, Listeners, Registry, Discovery, GrpcServers, Index, Metrics] ++
            [Mesh.Scope, Mesh.Member, Mesh.Peers, Handover.Successor, Handover.Offer],
        pid = Process.whereis(Module.concat(name, List.last(Module.split(part)))),
        do: Guard.await_end(pid, @orphan)
  end

  defp guard(config, module), do: {Guard, {config.name, {module, config}}}

  # Only the application's own gateway drains first when the node stops. The supervision tree of another
  # gateway determines its order.
  defp shutdown(%{name: ExServiceMeshRouter} = config), do: [guard(config, Shutdown)]
  defp shutdown(_config), do: []

  # The doctor only examines the application's own gateway.
  defp doctor(%{name: ExServiceMeshRouter, doctor: [_ | _]} = config),
    do: [{Guard, {config.name, {Doctor.Startup, name: config.name}}}]

  defp doctor(_config), do: []

  defp workers(config),
    do: for(index <- 0..(config.native.workers - 1), do: {Worker, {config, index}})
end
