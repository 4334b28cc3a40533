defmodule ExServiceMeshRouter.Listeners do
  @moduledoc false
  # Listeners that nobody but the gateway can reach, for endpoints that have none of their own.
  #
  # Discovery asks for them when it sees an endpoint (provide/4). What this process does
  # is before and after: those that could not have their port are spared that (Contention), and when
  # the gateway ends, it stops the listeners and puts the settings back. The gateway's Store remembers
  # both: a crash of this process stops no listener and forgets none.

  use GenServer

  require Logger

  @restore 200

  alias ExServiceMeshRouter.Gateway
  alias ExServiceMeshRouter.Endpoint.Settings
  alias ExServiceMeshRouter.Gateway.Store
  alias ExServiceMeshRouter.Listeners.{Contention, Listener, Policy, SocketDir, Takeover}

  def child_spec(config) do
    # Servers end when their connections have; the workers, which hold these, are stopped before.
    %{id: __MODULE__, start: {__MODULE__, :start_link, [config]}, shutdown: 30_000}
  end

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  @doc """
  Gives the endpoint, whose process is `pid`, a private listener if it is to have one and has none:
  `{:ok, pid, where}` as `Listener.ensure/2`, `{:error, reason}`, or `nil` if it is to have none.
  """
  def provide({name, mode}, endpoint, application, pid) do
    http = Settings.read(endpoint, application, [:http])[:http]

    if Listener.supervisor?(pid) and wanted?(mode, endpoint, application, http),
      do: ensure(name, endpoint, application)
  end

  defp wanted?(mode, endpoint, application, http) do
    settings = Settings.configured(application, endpoint)
    serves? = Settings.serves?(settings)

    mode != :never and
      (Policy.private?(mode, endpoint, serves?, http) or
         (Takeover.taken?(settings) and serves? and Policy.instead?(mode, endpoint)))
  end

  defp ensure(name, endpoint, application) do
    with {:ok, _pid, where} = result <- Listener.ensure(endpoint, application) do
      Store.put(name, {:private_listener, endpoint}, where)
      result
    end
  end

  @doc "Says why there is none, once for each reason."
  def complain(_endpoint, same, same), do: :ok
  def complain(_endpoint, nil, _before), do: :ok

  def complain(endpoint, problem, _before) do
    reason = Exception.format_exit(problem)

    Logger.warning(
      "#{inspect(endpoint)} has no private listener, it cannot be started: #{reason}"
    )
  end

  defp process_name(name), do: Module.concat(name, Listeners)

  @impl true
  def init(config) do
    Process.flag(:trap_exit, true)
    unless Store.get(config.name, :taken), do: prepare(config)
    {:ok, config.name}
  end

  defp prepare(config) do
    taken = Contention.prepare(config, Gateway.addresses(config.name))
    Store.put(config.name, :taken, taken)
  end

  # Only with the gateway.
  @impl true
  def terminate(:shutdown, name) do
    name |> Store.get(:taken, []) |> restore()

    for {endpoint, where} <- Store.all(name, :private_listener),
        do: Listener.stop(endpoint, where)

    SocketDir.forget()
  end

  def terminate(_crash, _name), do: :ok

  # By another process, which nobody waits for long: where this is the end of the application, its
  # controller, which keeps the settings, is itself waiting for us. At the end of an application all
  # processes of its group are killed, so that one must be of another group.
  defp restore(taken) do
    unless taken == [] or match?({:stopping, _}, :init.get_status()) do
      {_pid, monitor} =
        spawn_monitor(fn ->
          Process.group_leader(self(), Process.whereis(:init))
          Enum.each(taken, &Takeover.restore/1)
        end)

      receive do
        {:DOWN, ^monitor, :process, _, _} -> :ok
      after
        @restore -> :ok
      end
    end
  end
end
