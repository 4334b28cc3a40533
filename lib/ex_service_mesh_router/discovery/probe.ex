defmodule ExServiceMeshRouter.Discovery.Probe do
  @moduledoc false
  # What one endpoint is right now: its process, its host, where it listens. Runs in a process of
  # its own, because it asks the endpoint's supervisor, which may be busy or on its way down.
  #
  # What is really bound comes first. The configuration is believed only if the endpoint cannot be
  # asked (before Phoenix 1.7.10, or an adapter without `server_info/2`), or gives no answer for
  # good although it should serve.

  alias ExServiceMeshRouter.{PrivateListeners, Upstream}
  alias ExServiceMeshRouter.PrivateListeners.{Listener, Settings}

  defstruct [:pid, :host, upstreams: [], fallback: [], expected?: false, watch: [], problem: nil]

  @timeout 5_000

  @doc """
  Probes in another process. The caller gets `{:probed, monitor, result}`, or a `:DOWN` of the
  monitor, and has to kill whoever a `{:probe_timeout, pid}` names.
  """
  def start(endpoint, application, private) do
    caller = self()

    {pid, monitor} =
      spawn_monitor(fn ->
        receive do
          {:go, monitor} -> send(caller, {:probed, monitor, run(endpoint, application, private)})
        end
      end)

    send(pid, {:go, monitor})
    Process.send_after(caller, {:probe_timeout, pid}, @timeout)
    monitor
  end

  defp run(endpoint, application, private) do
    case Process.whereis(endpoint) do
      nil -> %__MODULE__{host: host(endpoint, application, nil)}
      pid -> endpoint |> running(application, pid, private) |> unless_ended(pid)
    end
  end

  # An endpoint that is on its way down answers late, and Cowboy still knows where it was.
  defp unless_ended(probe, pid) do
    if Process.alive?(pid), do: probe, else: %{probe | upstreams: [], fallback: []}
  end

  @doc "The host of an endpoint as far as it can be told without asking it."
  def configured_host(endpoint, application), do: host(endpoint, application, nil)

  defp running(endpoint, application, pid, private) do
    listener = private(endpoint, application, pid, private)
    expected? = listener != nil or serves?(endpoint, application)
    # Before the question where it is bound: Cowboy remembers the address of a server that is gone
    # until the next one is up. If the answer is that old, so is one of these processes.
    watch = server_processes(endpoint, pid)

    {upstreams, fallback} =
      case known(listener) || bound(endpoint) do
        {:ok, upstream} -> {[upstream], []}
        :none -> {[], if(expected?, do: configured(endpoint, application), else: [])}
        :unknown -> {if(expected?, do: configured(endpoint, application), else: []), []}
      end

    %__MODULE__{
      pid: pid,
      host: host(endpoint, application, pid),
      upstreams: upstreams,
      fallback: fallback,
      expected?: expected?,
      watch: watch,
      problem: problem(listener)
    }
  end

  # Whoever is to have a private listener gets it here.
  defp private(endpoint, application, pid, {name, mode}) do
    http = setting(endpoint, application, :http)

    if supervisor?(pid) and PrivateListeners.wanted?(mode, endpoint, application, http),
      do: PrivateListeners.ensure(name, endpoint, application)
  end

  defp known({:ok, _pid, {:unix, _path} = upstream}), do: {:ok, upstream}
  defp known({:error, _reason}), do: :none
  defp known(_other), do: nil

  defp problem({:error, reason}) when reason != :restarting, do: reason
  defp problem(_listener), do: nil

  defp bound(endpoint) do
    case endpoint.server_info(:http) do
      {:ok, {:ok, address}} -> from_bound(address)
      {:ok, address} -> from_bound(address)
      _error -> :none
    end
  rescue
    # Neither the endpoint nor its adapter has it.
    UndefinedFunctionError -> :unknown
    _ -> :none
  catch
    # The server, or the endpoint, ends while it is asked.
    _kind, _reason -> :none
  end

  defp from_bound(address) do
    with :error <- Upstream.from_bound(address), do: :none
  end

  defp configured(endpoint, application) do
    http = setting(endpoint, application, :http)
    url = setting(endpoint, application, :url)

    cond do
      is_list(http) -> from_options(http)
      http == false or setting(endpoint, application, :https) -> []
      is_list(url) -> from_port(nil, url[:port])
      true -> []
    end
  end

  # `ip: {:local, path}` and cowboy's `:inet6` stand among other options.
  defp from_options(options) do
    options = Enum.filter(options, &match?({_, _}, &1))

    case :proplists.get_value(:ip, options, nil) do
      {:local, path} -> from_port({:local, path}, 0)
      ip -> from_port(ip, :proplists.get_value(:port, options, 4_000))
    end
  end

  defp from_port({:local, _} = path, _port), do: ok(Upstream.from_bound(path))
  defp from_port(ip, {:system, variable}), do: from_port(ip, System.get_env(variable))

  defp from_port(ip, port) when is_binary(port) do
    case Integer.parse(port) do
      {number, ""} -> from_port(ip, number)
      _ -> []
    end
  end

  defp from_port(ip, port), do: ok(Upstream.from_bound({ip || {127, 0, 0, 1}, port}))

  defp ok({:ok, upstream}), do: [upstream]
  defp ok(:error), do: []

  defp serves?(endpoint, application) do
    case setting(endpoint, application, :server) do
      nil -> Application.get_env(:phoenix, :serve_endpoints, false) == true
      server -> server == true
    end
  end

  # A running endpoint knows its settings, start options included. Phoenix's default otherwise.
  # Where the gateway has changed what links say, the host is what was said before.
  defp host(endpoint, application, pid) do
    case if(pid, do: running_host(endpoint, application), else: env_host(endpoint, application)) do
      {:system, variable} -> System.get_env(variable) || "localhost"
      host when is_binary(host) -> host
      _ -> "localhost"
    end
  end

  defp running_host(endpoint, application) do
    kept = setting(endpoint, application, Settings.key())
    (is_list(kept) && kept[:url][:host]) || url_host(setting(endpoint, application, :url))
  end

  defp env_host(endpoint, application) do
    settings = Settings.get(application, endpoint)
    url_host(Settings.url(settings))
  end

  defp url_host(url), do: is_list(url) && url[:host]

  defp setting(endpoint, application, key) do
    endpoint.config(key)
  rescue
    _ -> from_env(endpoint, application, key)
  catch
    _kind, _reason -> from_env(endpoint, application, key)
  end

  defp from_env(endpoint, application, key) do
    case Application.get_env(application, endpoint) do
      settings when is_list(settings) -> Keyword.get(settings, key)
      _ -> nil
    end
  end

  # The processes whose end means that the listener is gone, although the endpoint lives on: its
  # supervisor restarts them, and no event says so.
  defp server_processes(endpoint, pid) do
    if supervisor?(pid) do
      for {id, child, _, _} <- Supervisor.which_children(pid),
          is_pid(child) and Listener.listener?(id, endpoint),
          do: child
    else
      []
    end
  catch
    :exit, _reason -> []
  end

  # Whatever is no supervisor must not be sent a supervisor's calls.
  defp supervisor?(pid) do
    case Process.info(pid, :dictionary) do
      {:dictionary, dictionary} ->
        match?(
          {:"$initial_call", {:supervisor, _, _}},
          List.keyfind(dictionary, :"$initial_call", 0)
        )

      nil ->
        false
    end
  end
end
