defmodule ExServiceMeshRouter.Listeners do
  @moduledoc false
  # Provides private listeners, which only the gateway can reach, for endpoints without a port, and the
  # dispatchers of endpoints that need no socket.
  #
  # Discovery requests both when it finds an endpoint (provide/4, dispatchers/3). This process resolves port
  # conflicts when the gateway starts (Contention); when the gateway stops, it stops both and
  # restores the settings. Its state is in the gateway's Store, so that a crash stops no listener.

  use GenServer

  require Logger

  @restore 200

  alias ExServiceMeshRouter.{Gateway, InVm}
  alias ExServiceMeshRouter.Endpoint.Settings
  alias ExServiceMeshRouter.Gateway.Store
  alias ExServiceMeshRouter.Listeners.{Contention, Listener, Policy, SocketDir, Takeover}

  def child_spec(config) do
    # A server ends after its connections, which the workers close before.
    %{id: __MODULE__, start: {__MODULE__, :start_link, [config]}, shutdown: 30_000}
  end

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  @doc """
  Starts the private listener of an endpoint, whose process is `pid`, unless it runs. Returns `{:ok,
  pid, where}` as `Listener.ensure/2`, `{:error, reason}`, or `nil` if the endpoint is to have none.
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

  @doc """
  Starts the dispatchers of an endpoint, whose process is `pid`, unless they run. Returns `{:ok, pids}`,
  `{:error, why}` if its requests use the socket, or `nil` if `in_vm` does not want them.
  """
  def dispatchers({name, mode}, endpoint, pid) do
    if InVm.wanted?(mode, endpoint) do
      with {:ok, start} <- Listener.server(endpoint, pid),
           {:ok, pids} <- InVm.ensure(endpoint, start) do
        Store.put(name, {:dispatchers, endpoint}, true)
        {:ok, pids}
      else
        :error -> {:error, "its supervisor has no server"}
        {:error, why} -> {:error, why}
      end
    end
  end

  @doc "Logs why an endpoint has no private listener, once per reason."
  def complain(_endpoint, same, same), do: :ok
  def complain(_endpoint, nil, _before), do: :ok

  def complain(endpoint, problem, _before) do
    reason = Exception.format_exit(problem)

    Logger.warning(
      "#{inspect(endpoint)} has no private listener, because it failed to start: #{reason}"
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

  # A crash must not stop the listeners.
  @impl true
  def terminate(:shutdown, name) do
    name |> Store.get(:taken, []) |> restore()

    for {endpoint, true} <- Store.all(name, :dispatchers), do: InVm.stop(endpoint)

    for {endpoint, where} <- Store.all(name, :private_listener),
        do: Listener.stop(endpoint, where)

    SocketDir.forget()
  end

  def terminate(_crash, _name), do: :ok

  # In another process, with a short wait: at the end of the application, the application controller,
  # which has the settings, waits for this process. OTP then also kills all processes of the
  # application's group, so the other process must leave the group.
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
