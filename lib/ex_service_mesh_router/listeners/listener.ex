defmodule ExServiceMeshRouter.Listeners.Listener do
  @moduledoc false
  # Starts and stops the private listener of one endpoint. The endpoint's adapter makes it, and it is a
  # child of the endpoint's supervisor, as Phoenix's own listener: it restarts there, ends with the
  # endpoint, and `server_info/1` of the endpoint returns its address.

  require Logger

  alias ExServiceMeshRouter.Endpoint.Settings
  alias ExServiceMeshRouter.Listeners.{Front, SocketDir, Takeover}

  @loopback [ip: {127, 0, 0, 1}, port: 0]

  @doc """
  Starts the private listener unless it runs, and stops the endpoint's own listener before. Returns
  `{:ok, pid, {:unix, path} | :ask}`; `:ask` means a port that the system chose.
  """
  def ensure(endpoint, application) do
    case mine(endpoint) do
      # Its supervisor restarts it, or has not yet received its exit.
      [{_id, pid, where} | _] when is_pid(pid) ->
        if Process.alive?(pid), do: {:ok, pid, where}, else: {:error, :restarting}

      [{_id, :restarting, _where} | _] ->
        {:error, :restarting}

      children ->
        start(endpoint, application, children)
    end
  end

  defp start(endpoint, application, ended) do
    for {id, _pid, _where} <- ended, do: stop_child(endpoint, id)
    stop_own(endpoint)

    with {:error, reason} <- start_on_socket(endpoint, application) do
      with {:no_socket, why} <- reason,
           do:
             Logger.warning(
               "#{inspect(endpoint)} gets a loopback port, which other users of this machine can " <>
                 "reach: #{why}"
             )

      start_at(endpoint, application, :ask, @loopback)
    end
  end

  defp start_on_socket(endpoint, application) do
    case SocketDir.socket(inspect(endpoint)) do
      {:ok, path} -> start_at(endpoint, application, {:unix, path}, ip: {:local, path}, port: 0)
      {:error, why} -> {:error, {:no_socket, why}}
    end
  end

  defp start_at(endpoint, application, where, address) do
    config = config(endpoint, application, address)

    specs =
      for spec <- config[:adapter].child_specs(endpoint, config),
          do: Supervisor.child_spec(spec, [])

    with {[listener], others} <- Enum.split_with(specs, &listener?(&1.id, endpoint)),
         {:ok, listener} <- with_front(listener, where, http(endpoint, application)) do
      start_children(endpoint, listener, others, where)
    else
      {[], _} -> {:error, {:no_listener, config[:adapter]}}
      {:error, _reason} = error -> error
    end
  rescue
    error -> {:error, error}
  end

  # An unknown adapter keeps the configured kind of address: its endpoint may expect an IP address in
  # `conn.remote_ip`, which a Unix socket does not have.
  defp with_front(spec, where, http) do
    case Front.put_before(spec) do
      {:ok, spec} ->
        {:ok, spec}

      :error when where == :ask ->
        {:ok, spec}

      :error ->
        if tcp?(Settings.listener(http)), do: {:error, :unknown_adapter}, else: {:ok, spec}
    end
  end

  defp tcp?(listener), do: listener != nil and not match?({:unix, _path}, listener)

  defp start_children(endpoint, listener, others, where) do
    listener = %{listener | start: {__MODULE__, :start_link, [where, listener.start]}}

    with {:ok, pid} <- start_child(endpoint, listener) do
      # Siblings of the listener, such as Cowboy's drainer, which may already run for TLS.
      for spec <- others, do: start_child(endpoint, spec)
      {:ok, pid, where}
    end
  end

  defp start_child(endpoint, spec) do
    case Supervisor.start_child(endpoint, spec) do
      {:ok, pid} -> {:ok, pid}
      {:ok, pid, _info} -> {:ok, pid}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc false
  # Removes the socket of an ended server first; it would count as an address in use.
  def start_link({:unix, path}, {module, function, arguments}),
    do: SocketDir.listen(path, fn -> apply(module, function, arguments) end)

  def start_link(:ask, {module, function, arguments}), do: apply(module, function, arguments)

  # The configuration of the endpoint's own listener, with another address.
  defp config(endpoint, application, address) do
    settings = Settings.configured(application, endpoint)

    asked =
      for key <- [:adapter, :code_reloader, :drainer],
          value = endpoint.config(key),
          do: {key, value}

    [adapter: Phoenix.Endpoint.Cowboy2Adapter]
    |> Keyword.merge(settings)
    |> Keyword.merge(asked)
    |> Keyword.merge(
      otp_app: application,
      https: false,
      http: address ++ without_address(http(endpoint, application))
    )
  end

  defp http(endpoint, application),
    do: application |> Settings.configured(endpoint) |> Takeover.http() || endpoint.config(:http)

  # Adapters take socket options at different depths.
  defp without_address(options) when is_list(options) do
    for option <- options, option not in [:inet, :inet6], not address?(option) do
      case option do
        {key, value} when is_list(value) -> {key, without_address(value)}
        option -> option
      end
    end
  end

  defp without_address(_none), do: []

  defp address?({key, _value}), do: key in [:ip, :ifaddr, :port, :net, :ipv6_v6only]
  defp address?(_option), do: false

  @doc "Stops the private listener at `where`, which may have ended with its endpoint."
  def stop(endpoint, where) do
    stop(endpoint)
    with {:unix, path} <- where, do: File.rm(path)
    :ok
  end

  defp stop(endpoint) do
    for {id, _pid, _where} <- mine(endpoint), do: stop_child(endpoint, id)
  catch
    :exit, _reason -> []
  end

  @doc "Stops the listener that the endpoint started itself, if it has one."
  def stop_own(endpoint) do
    mine = for {id, _, _} <- mine(endpoint), do: id

    for {id, _pid, _, _} <- Supervisor.which_children(endpoint),
        listener?(id, endpoint) and id not in mine,
        do: stop_child(endpoint, id)

    :ok
  end

  defp stop_child(endpoint, id) do
    Supervisor.terminate_child(endpoint, id)
    Supervisor.delete_child(endpoint, id)
    forget(id)
  end

  # Ranch keeps the options of a listener that a supervisor stopped, and would reuse them.
  defp forget({ranch, ref}) when ranch in [:ranch_listener_sup, :ranch_embedded_sup] do
    if function_exported?(:ranch_server, :cleanup_listener_opts, 1),
      do: apply(:ranch_server, :cleanup_listener_opts, [ref])
  end

  defp forget(_id), do: :ok

  defp mine(endpoint) do
    for {id, pid, _, _} <- Supervisor.which_children(endpoint),
        {:ok, %{start: {__MODULE__, :start_link, [where, _]}}} <- [
          :supervisor.get_childspec(endpoint, id)
        ],
        do: {id, pid, where}
  end

  @doc """
  Returns how the server of an endpoint is started, `{module, function, arguments}`, without what the
  gateway has added; `:error` if the endpoint's supervisor has no server.
  """
  def server(endpoint, pid) do
    starts =
      for {id, _child, _, _} <-
            if(supervisor?(pid), do: Supervisor.which_children(pid), else: []),
          listener?(id, endpoint),
          {:ok, %{start: start}} <- [:supervisor.get_childspec(pid, id)],
          do: start

    case starts do
      [{__MODULE__, :start_link, [_where, start]} | _] -> {:ok, Front.remove(start)}
      [start | _] -> {:ok, start}
      [] -> :error
    end
  catch
    :exit, _reason -> :error
  end

  @doc """
  Returns the listener processes of an endpoint, whose supervisor is `pid`. When one exits, the
  supervisor restarts it, and there is no event.
  """
  def processes(endpoint, pid) do
    if supervisor?(pid) do
      for {id, child, _, _} <- Supervisor.which_children(pid),
          is_pid(child) and listener?(id, endpoint),
          do: child
    else
      []
    end
  catch
    :exit, _reason -> []
  end

  @doc "Returns whether a process is a supervisor. Other processes must not get a supervisor's calls."
  def supervisor?(pid) do
    with {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         {_, {:supervisor, _, _}} <- List.keyfind(dictionary, :"$initial_call", 0),
         do: true,
         else: (_ -> false)
  end

  @doc "Returns whether a child id is a listener: Bandit's is `{endpoint, :http}`, Cowboy's ends in its name."
  def listener?(id, endpoint) when is_tuple(id) and tuple_size(id) > 1 do
    id == {endpoint, :http} or elem(id, tuple_size(id) - 1) == Module.concat(endpoint, HTTP)
  end

  def listener?(_id, _endpoint), do: false
end
