defmodule ExServiceMeshRouter.Discovery.Probe do
  @moduledoc false
  # Looks what one endpoint is right now: its process, its host, where it listens. Does so in a process
  # of its own, because it asks the endpoint's supervisor, which may be busy or on its way down.
  #
  # What is really bound comes first. The configuration is believed only if the endpoint cannot be
  # asked (before Phoenix 1.7.10, or an adapter without `server_info/2`), or gives no answer for
  # good although it should serve.

  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Endpoint.Settings
  alias ExServiceMeshRouter.Listeners.{Listener, Takeover}

  defstruct [:pid, :host, upstreams: [], fallback: [], expected?: false, watch: [], problem: nil]

  @timeout 5_000

  @doc """
  Probes in another process. That calls `listen` with the endpoint's process first, which returns the
  private listener, as `Listeners.provide/4` does, or `nil`. The caller gets `{:probed, monitor, result}`, or a `:DOWN` of the
  monitor, and has to kill whoever a `{:probe_timeout, pid}` names.
  """
  def start(endpoint, application, listen) do
    caller = self()

    # Linked as well: a probe that hangs must not outlive its caller, which would kill it.
    {pid, monitor} =
      Process.spawn(
        fn ->
          receive do
            {:go, monitor} ->
              send(caller, {:probed, monitor, run(endpoint, application, listen)})
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

  # An endpoint that is on its way down answers late, and Cowboy still knows where it was.
  defp unless_ended(probe, pid) do
    if Process.alive?(pid), do: probe, else: %{probe | upstreams: [], fallback: []}
  end

  @doc "The host of an endpoint as far as it can be told without asking it."
  def configured_host(endpoint, application), do: host(endpoint, application, nil)

  defp running(endpoint, application, pid, listener) do
    server = Settings.read(endpoint, application, [:server])
    expected? = listener != nil or Settings.serves?(server)
    # Before the question where it is bound: Cowboy remembers the address of a server that is gone
    # until the next one is up. If the answer is that old, so is one of these processes.
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
      watch: watch,
      problem: problem(listener)
    }
  end

  defp known({:ok, _pid, {:unix, path}}), do: {:ok, Upstream.unix(path)}
  defp known({:error, _reason}), do: :none
  defp known(_other), do: nil

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

  # Where the gateway has changed what links say, the host is what was said before.
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
