defmodule ExServiceMeshRouter.PrivateListeners do
  @moduledoc false
  # Listeners that nobody but the gateway can reach, for endpoints that have none of their own.
  #
  # Discovery starts them, when it sees an endpoint that wants one (ensure/4). What this process does
  # is before and after: it takes `http:` from those that could not have their port, before they
  # start; and when the gateway ends, it stops the listeners and puts the settings back.

  use GenServer

  require Logger

  @restore 200

  alias ExServiceMeshRouter.{Discovery.Candidates, Environment, Gateway}

  alias ExServiceMeshRouter.PrivateListeners.{
    Address,
    Links,
    Listener,
    Policy,
    Settings,
    SocketDir
  }

  def child_spec(config) do
    # Servers end when their connections have; the workers, which hold these, are stopped before.
    %{id: __MODULE__, start: {__MODULE__, :start_link, [config]}, shutdown: 30_000}
  end

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  @doc """
  Whether the endpoint is to have a private listener. `http` is that of the running endpoint.
  """
  def wanted?(mode, endpoint, application, http) do
    settings = Settings.get(application, endpoint)
    serves? = Settings.serves?(settings)

    mode != :never and
      (Policy.private?(mode, endpoint, serves?, http) or
         (Settings.taken?(settings) and serves? and Policy.instead?(mode, endpoint)))
  end

  @doc "Starts the listener unless it runs; see `Listener.ensure/2`."
  def ensure(name, endpoint, application) do
    with {:ok, _pid, _where} = result <- Listener.ensure(endpoint, application) do
      GenServer.cast(process_name(name), {:started, endpoint})
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

  @doc """
  Called when the gateway's port is in use: takes it from endpoints of this system that have it, so
  far as they are to get a private listener instead. `:ok` if the port may be free now, otherwise
  `{:error, holder}`, with the `{application, endpoint}` that has it, or `nil`.
  """
  def free(config) do
    wanted = for ip <- config.ips, do: {ip(ip), config.port}

    holders =
      for {endpoint, application} <- Candidates.all(true),
          address = bound(endpoint),
          Enum.any?(wanted, &Address.overlap?(&1, address)),
          do: {application, endpoint}

    case Enum.reject(holders, &instead?(&1, config)) do
      [holder | _] -> {:error, holder}
      [] when holders == [] -> {:error, nil}
      [] -> Enum.each(holders, &take_over(&1, config.port))
    end
  end

  defp instead?({application, endpoint}, config) do
    config.discover != false and Candidates.wanted?(endpoint, application, config.discover) and
      Policy.instead?(config.private_listeners, endpoint)
  end

  defp bound(endpoint) do
    if Process.whereis(endpoint) do
      case endpoint.server_info(:http) do
        {:ok, {:ok, {ip, port}}} when is_tuple(ip) -> {ip, port}
        {:ok, {ip, port}} when is_tuple(ip) -> {ip, port}
        _ -> nil
      end
    end
  rescue
    _ -> nil
  catch
    _kind, _reason -> nil
  end

  defp take_over({application, endpoint}, port) do
    log({application, endpoint}, port)
    Settings.take(application, endpoint, port: port)
    Listener.stop_own(endpoint)
  end

  defp process_name(name), do: Module.concat(name, PrivateListeners)

  @impl true
  def init(config) do
    Process.flag(:trap_exit, true)
    taken = prepare(config, Gateway.addresses(config.name))
    {:ok, %{taken: taken, started: MapSet.new()}}
  end

  @impl true
  def handle_cast({:started, endpoint}, state),
    do: {:noreply, %{state | started: MapSet.put(state.started, endpoint)}}

  @impl true
  def terminate(_reason, state) do
    restore(state.taken)
    Enum.each(state.started, &Listener.stop/1)
    SocketDir.forget()
  end

  # By another process, which nobody waits for long: where this is the end of the application, its
  # controller, which keeps the settings, is itself waiting for us. At the end of an application all
  # processes of its group are killed, so that one must be of another group.
  defp restore(taken) do
    unless taken == [] or match?({:stopping, _}, :init.get_status()) do
      {_pid, monitor} =
        spawn_monitor(fn ->
          Process.group_leader(self(), Process.whereis(:init))
          Enum.each(taken, &Settings.restore/1)
        end)

      receive do
        {:DOWN, ^monitor, :process, _, _} -> :ok
      after
        @restore -> :ok
      end
    end
  end

  # What an endpoint starts with can only be changed before it starts. The others are given their
  # settings for the next time.
  defp prepare(config, [{_ip, port} | _] = addresses) do
    own = for {ip, port} <- addresses, do: {ip(ip), port}

    endpoints =
      for {endpoint, application} <- Enum.sort(Candidates.all(true)) do
        settings = Settings.get(application, endpoint)
        %{key: {application, endpoint}, settings: settings, address: address(settings)}
      end

    Enum.filter(endpoints, fn it ->
      prepare(it, rivals(it, endpoints, own), Links.given(it, endpoints, port, config), config)
    end)
    |> Enum.map(& &1.key)
  end

  defp address(settings),
    do: if(Settings.serves?(settings), do: settings |> Settings.http() |> Address.of())

  defp rivals(%{key: key, address: address}, endpoints, own) do
    cond do
      Enum.any?(own, &Address.overlap?(&1, address)) ->
        [:gateway]

      true ->
        for %{key: other, address: its} <- endpoints,
            other != key,
            Address.overlap?(its, address),
            do: other
    end
  end

  defp prepare(
         %{key: {application, endpoint} = key, settings: settings} = it,
         rivals,
         links,
         config
       ) do
    cond do
      not instead?(key, config) ->
        if rivals == [:gateway] and Process.whereis(endpoint) == nil, do: warn(it)
        false

      Policy.always?(config.private_listeners, endpoint) ->
        Settings.take(application, endpoint, links)
        true

      rivals == [:gateway] or (rivals != [] and Process.whereis(endpoint) == nil) ->
        unless Settings.taken?(settings), do: log(key, elem(it.address, 1))
        Settings.take(application, endpoint, links)
        true

      Environment.development?() and Settings.serves?(settings) ->
        Settings.link(application, endpoint, links)
        true

      true ->
        Settings.taken?(settings)
    end
  end

  defp log({application, endpoint}, port) do
    Logger.info(
      "#{inspect(endpoint)} cannot have port #{port} to itself: it is given a private listener. " <>
        "To ask for one, and end this line: " <>
        "`config #{inspect(application)}, #{inspect(endpoint)}, http: false`"
    )
  end

  defp warn(%{key: {application, endpoint}, address: {_ip, port}}) do
    Logger.error(
      "port #{port} is wanted by both ExServiceMeshRouter and #{inspect(endpoint)}, which will not " <>
        "start. Give the endpoint another one: " <>
        "`config #{inspect(application)}, #{inspect(endpoint)}, http: [port: #{port + 1}]`"
    )
  end

  defp ip(text) do
    {:ok, ip} = text |> to_charlist() |> :inet.parse_address()
    ip
  end
end
