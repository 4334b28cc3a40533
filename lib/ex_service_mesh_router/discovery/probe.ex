defmodule ExServiceMeshRouter.Discovery.Probe do
  @moduledoc false
  # Reads the current state of one endpoint: its process, its host, where it listens. It runs in a
  # separate process, because it calls the endpoint's supervisor, which may be busy or stopping.
  #
  # The bound address takes precedence. The configured one is used only if the endpoint cannot be asked
  # (before Phoenix 1.7.10, or an adapter without `server_info/2`), or if it serves and still has no
  # bound address after all retries.

  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Endpoint.Settings
  alias ExServiceMeshRouter.Listeners.{Listener, Takeover}

  defstruct [:pid, :host, upstreams: [], fallback: [], expected?: false, watch: [], problem: nil] ++
              [in_vm: false, awaited?: false]

  @timeout 5_000

  @doc """
  Starts a probe in another process and returns its monitor. The probe calls two functions with the
  endpoint's process: first `listen`, which returns the private listener, as `Listeners.provide/4`, then
  `dispatch`, which returns the dispatchers, as `Listeners.dispatchers/3`. The caller
  gets `{:probed, monitor, result}` or a `:DOWN` of the monitor, and must kill the process of a
  `{:probe_timeout, pid}`.
  """
  def start(endpoint, application, listen, dispatch) do
    caller = self()

    # Linked: a probe that hangs must not outlive its caller.
    {pid, monitor} =
      Process.spawn(
        fn ->
          receive do
            {:go, monitor} ->
              result = endpoint |> run(application, listen) |> dispatched(dispatch)
              send(caller, {:probed, monitor, result})
          end
        end,
        [:link, :monitor]
      )

    send(pid, {:go, monitor})
    Process.send_after(caller, {:probe_timeout, pid}, @timeout)
    monitor
  end

  defp run(endpoint, application, listen) do
    case Process.whereis(endpoint) do
      nil -> %__MODULE__{host: host(endpoint, application, nil)}
      pid -> endpoint |> running(application, pid, listen.(pid)) |> unless_ended(pid)
    end
  end

  # The monitors are on the dispatchers, too.
  defp dispatched(%{upstreams: [_ | _] = upstreams} = probe, dispatch) do
    case dispatch.(probe.pid) do
      nil ->
        probe

      {:error, why} ->
        %{probe | in_vm: why}

      {:ok, pids} ->
        upstreams = Enum.map(upstreams, &Upstream.put_dispatchers(&1, pids))
        %{probe | in_vm: true, upstreams: upstreams, watch: probe.watch ++ pids}
    end
  end

  defp dispatched(probe, _dispatch), do: probe

  # An endpoint that stops answers late, and Cowboy still has its old address.
  defp unless_ended(probe, pid) do
    if Process.alive?(pid), do: probe, else: %{probe | upstreams: [], fallback: []}
  end

  @doc "Returns the configured host of an endpoint, without a call to it."
  def configured_host(endpoint, application), do: host(endpoint, application, nil)

  defp running(endpoint, application, pid, listener) do
    server = Settings.read(endpoint, application, [:server])
    expected? = listener != nil or Settings.serves?(server)

    # Read before the bound address: Cowboy keeps the address of a stopped server until the next one
    # starts. If the address is outdated, the monitor on one of these processes fires.
    watch = Listener.processes(endpoint, pid)

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
      awaited?: listener != nil or (expected? and http?(endpoint, application)),
      watch: watch,
      problem: problem(listener)
    }
  end

  defp known({:ok, _pid, {:unix, path}}), do: {:ok, Upstream.unix(path)}
  defp known({:error, _reason}), do: :none
  defp known(_other), do: nil

  # An endpoint with `https:` only has no listener that the gateway can reach.
  defp http?(endpoint, application) do
    settings = Settings.read(endpoint, application, [:http])
    Settings.listener(settings[:http]) != nil
  end

  defp problem({:error, reason}) when reason != :restarting, do: reason
  defp problem(_listener), do: nil

  defp bound(endpoint) do
    with {:ok, address} <- Settings.bound(endpoint),
         :error <- Upstream.from_bound(address),
         do: :none
  end

  defp configured(endpoint, application) do
    settings = Settings.read(endpoint, application, [:http, :https, :url])
    port = Settings.port(Settings.url(settings)[:port])

    case Settings.listener(settings[:http]) do
      {:tcp, ip, port} ->
        upstreams({ip, port})

      {:unix, path} ->
        upstreams({:local, path})

      :unknown ->
        []

      nil ->
        if is_list(settings[:https]) or settings[:http] == false,
          do: [],
          else: upstreams({{127, 0, 0, 1}, port})
    end
  end

  defp upstreams(address) do
    case Upstream.from_bound(address) do
      {:ok, upstream} -> [upstream]
      :error -> []
    end
  end

  # If the gateway has changed the host of the links, the configured one counts.
  defp host(endpoint, application, pid) do
    keys = [:url, Takeover.key()]

    settings =
      if pid,
        do: Settings.read(endpoint, application, keys),
        else: Settings.configured(application, endpoint)

    before = Takeover.url(settings)
    Settings.host(if before[:host], do: before, else: Settings.url(settings))
  end
end
