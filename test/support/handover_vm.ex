defmodule ExServiceMeshRouter.HandoverVm do
  @moduledoc """
  VMs that hand a port over, as a release runs them: each with the gateway of the application and a server of its
  own behind it, which answers with the process id of its VM.
  """

  alias ExServiceMeshRouter.{Cluster, Handover}
  alias ExServiceMeshRouter.Http.{Request, Server}

  @host "app.local"

  def host, do: @host

  defmodule SlowApplication do
    @moduledoc "An application that starts for as long as its VM lives."

    use Application

    @impl true
    def start(_type, _arguments), do: Process.sleep(:infinity)
  end

  @doc """
  Starts a VM with a gateway that is to have `port`. `options` are those of the gateway; `ready: false` has an
  application that never comes up. Returns the VM, and `:ok` or `{:error, text}` of the gateway.
  """
  def start(port, options) do
    vm = Cluster.start_node("handover", distributed: false)
    {vm, Cluster.call(vm, __MODULE__, :boot, [port, options])}
  end

  @doc "As `start/2`, and returns when the VM has the port."
  def start!(port, options) do
    {vm, :ok} = start(port, options)
    await_port(options[:handover][:path], pid(vm))
    vm
  end

  @doc "Waits until the process has the port."
  def await_port(path, pid) do
    ExServiceMeshRouter.GatewayCase.eventually(pid, 20_000, fn ->
      with {:ok, %{serving: %{"pid" => pid}}} <- Handover.status(path), do: pid
    end)
  end

  def pid(vm), do: vm |> Cluster.call(:os, :getpid, []) |> List.to_integer()

  @doc "Waits until the VM has ended by itself."
  def await_end(vm) do
    monitor = Process.monitor(vm)

    receive do
      {:DOWN, ^monitor, :process, _, _} -> :ok
    after
      40_000 -> raise "the VM does not end: #{inspect(Cluster.log(vm))}"
    end
  end

  @doc "The open sockets of a process."
  def sockets(pid) do
    directory = "/proc/#{pid}/fd"

    Enum.count(File.ls!(directory), fn fd ->
      match?({:ok, "socket:" <> _}, File.read_link(Path.join(directory, fd)))
    end)
  end

  @doc "The resident memory of a process in MiB."
  def memory(pid) do
    [_, kilobytes] = Regex.run(~r/VmRSS:\s+(\d+) kB/, File.read!("/proc/#{pid}/status"))
    div(String.to_integer(kilobytes), 1_024)
  end

  # On the node

  @doc false
  def boot(port, options) do
    {ready, options} = Keyword.pop(options, :ready, true)
    unless ready, do: start_slowly()
    {:ok, server} = Server.start_link(handler: &handle/1)
    Process.unlink(server)

    defaults = [
      port: port,
      ip: {127, 0, 0, 1},
      server: true,
      discover: false,
      doctor: false,
      index: false,
      services: %{@host => Server.url(server)}
    ]

    Application.put_all_env(ex_service_mesh_router: Keyword.merge(defaults, options))

    case Application.ensure_all_started(:ex_service_mesh_router) do
      {:ok, _started} -> :ok
      {:error, {_application, reason}} -> {:error, text(reason)}
    end
  end

  defp text({{%_{__exception__: true} = error, _stack}, _mfa}), do: Exception.message(error)
  defp text({%_{__exception__: true} = error, _stack}), do: Exception.message(error)
  defp text(other), do: inspect(other)

  defp start_slowly do
    keys = [vsn: ~c"1", modules: [], registered: [], mod: {SlowApplication, []}]
    :ok = :application.load({:application, :slow_application, keys})
    spawn(fn -> :application.start(:slow_application) end)
  end

  @doc false
  def handle(%{path: "/ws"} = request), do: {Demo.WebSocket.upgrade(request), request}

  def handle(%{path: "/events"} = request) do
    events = Stream.map(1..40, fn n -> Process.sleep(25) && "data: #{n}\n\n" end)
    {{200, [{"content-type", "text/event-stream"}], {:stream, events}}, request}
  end

  def handle(request) do
    {size, request} = Request.reduce_body(request, 0, &(byte_size(&1) + &2))
    {{200, [], "#{System.pid()} #{size}"}, request}
  end
end
