defmodule ExServiceMeshRouter.Console.Index do
  @moduledoc false
  # Serves the index, the page with all services, for unknown hosts and the gateway's own address.
  #
  # To the data plane, it is an upstream on a Unix socket, and the default if none is configured. The
  # request path must not know it (Registry.IndexRow).

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
        Logger.warning("the gateway starts without its index: #{why}")
        Supervisor.init([], strategy: :one_for_one)
    end
  end

  @doc "Returns the path of its socket, as `SocketDir.socket/1`."
  def socket(name), do: SocketDir.socket("index-#{inspect(name)}")

  defp children(config, path) do
    [
      {Sampler, config},
      %{id: Http.Server, start: {__MODULE__, :start_server, [path, config]}},
      {Registration, {config.name, Upstream.unix(path)}}
    ]
  end

  # One request per connection, so that requests of different clients never share one.
  @doc false
  def start_server(path, config) do
    handler = &{Handler.answer(&1, config), &1}
    options = [ip: {:local, path}, handler: handler, keep_alive: false]
    SocketDir.listen(path, fn -> Http.Server.start_link(options) end)
  end
end
