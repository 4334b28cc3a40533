defmodule ExServiceMeshRouter.Console.Index do
  @moduledoc false
  # The page that says what there is: for a host that nobody has, and for the gateway's own address.
  #
  # To the data plane it is one more upstream, on a Unix socket, and the default where the user has
  # configured none; so the request path has no case for it (Registry.IndexRow).

  use Supervisor

  require Logger

  alias ExServiceMeshRouter.Http
  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Console.Index.{Handler, Registration, Sampler}
  alias ExServiceMeshRouter.Listeners.SocketDir

  def start_link(config),
    do: Supervisor.start_link(__MODULE__, config, name: Module.concat(config.name, Index))

  @impl true
  def init(config) do
    case socket(config.name) do
      {:ok, path} ->
        config |> children(path) |> Supervisor.init(strategy: :rest_for_one, max_restarts: 10)

      {:error, why} ->
        Logger.warning("there is no index: #{why}")
        Supervisor.init([], strategy: :one_for_one)
    end
  end

  @doc "Where it listens."
  def socket(name), do: SocketDir.socket("index-#{inspect(name)}")

  defp children(config, path) do
    [
      {Sampler, config},
      %{id: Http.Server, start: {__MODULE__, :start_server, [path, config]}},
      {Registration, {config.name, Upstream.unix(path)}}
    ]
  end

  # One request on each connection: strangers' requests never follow each other on one.
  @doc false
  def start_server(path, config) do
    handler = &{Handler.answer(&1, config), &1}
    options = [ip: {:local, path}, handler: handler, keep_alive: false]
    SocketDir.listen(path, fn -> Http.Server.start_link(options) end)
  end
end
