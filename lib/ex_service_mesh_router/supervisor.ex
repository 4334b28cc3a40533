defmodule ExServiceMeshRouter.Supervisor do
  @moduledoc """
  One gateway: its listener, its registry of services, its workers, its discovery.

  The application starts one of these from its configuration. Another one can be started anywhere
  in a supervision tree, with the keys of `ExServiceMeshRouter.Config` and a name:

      children = [
        {ExServiceMeshRouter.Supervisor, name: MyApp.AdminGateway, port: 4100}
      ]

  It listens as soon as it is started, whatever `server` says. The functions of
  `ExServiceMeshRouter` take its name as first argument:
  `ExServiceMeshRouter.services(MyApp.AdminGateway)`.

  Start it before what it routes to: a supervisor stops its children in reverse order, and the
  gateway should be the last to leave.
  """

  use Supervisor

  alias ExServiceMeshRouter.{Config, Discovery, Doctor, Gateway, Index, Metrics, Names}
  alias ExServiceMeshRouter.{PrivateListeners, Reporter}
  alias ExServiceMeshRouter.{Routes, Shutdown, Worker}

  @doc """
  Starts a gateway.

  Returns `{:error, %ExServiceMeshRouter.ConfigError{}}` for options that are wrong, and
  `{:error, %ExServiceMeshRouter.ListenError{}}` if it cannot listen.
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

  defp readable({:error, {:shutdown, {:failed_to_start_child, child, {:shutdown, reason}}}})
       when child in [Reports, Pages],
       do: readable({:error, {:shutdown, reason}})

  defp readable({:error, {:shutdown, {:failed_to_start_child, _child, {:shutdown, error}}}})
       when is_exception(error),
       do: {:error, error}

  defp readable(result), do: result

  # Whoever depends on the data plane's reference comes after its owner, and goes with it. The
  # registry has its routes before a worker accepts; discovery ends before the workers drain, and they
  # have drained before the private listeners end.
  @impl true
  def init(config) do
    children =
      [{Gateway, config}, reports(config), {PrivateListeners, config}, {Routes, config}] ++
        [{Names, config}, workers(config)] ++
        if(config.discover == false, do: [], else: [{Discovery, config}]) ++
        if(config.index, do: [{Index, config}], else: []) ++
        if(config.metrics, do: [pages(config)], else: []) ++
        doctor(config) ++
        shutdown(config)

    Supervisor.init(children, strategy: :rest_for_one)
  end

  # A supervisor of its own: whatever fails there, requests go on.
  defp reports(config), do: apart(config, Reports, [{Reporter, config}])

  defp pages(config), do: apart(config, Pages, [{Metrics, config}])

  defp apart(config, name, children) do
    options = [strategy: :one_for_one, max_restarts: 10, name: Module.concat(config.name, name)]
    %{id: name, type: :supervisor, start: {Supervisor, :start_link, [children, options]}}
  end

  # Only the application's own gateway is drained first when the node stops: whoever starts another
  # one has chosen its place in a supervision tree.
  defp shutdown(%{name: ExServiceMeshRouter} = config), do: [{Shutdown, config}]
  defp shutdown(_config), do: []

  # A gateway that somebody starts beside it is not the one that a system is measured by.
  defp doctor(%{name: ExServiceMeshRouter, doctor: [_ | _]} = config),
    do: [{Doctor.Watch, name: config.name}]

  defp doctor(_config), do: []

  # A failing worker pauses before it ends, so no fault that lasts can exceed this intensity.
  defp workers(config) do
    count = config.native.workers
    children = for index <- 0..(count - 1), do: {Worker, {config, index}}
    options = [strategy: :one_for_one, max_restarts: 3 * count, max_seconds: 1]

    %{
      id: :workers,
      type: :supervisor,
      start: {Supervisor, :start_link, [children, options]},
      shutdown: :infinity
    }
  end
end
