defmodule ExServiceMeshRouter.Discovery.GrpcServers do
  @moduledoc false
  # Follows the gRPC servers of this VM that `grpc:` names: where they listen, and when they stop. It
  # knows elixir-grpc with its Cowboy adapter, whose listener in Ranch has the name of the endpoint, or of
  # the only one of `servers:`. Ranch emits no event for a started listener, so it is asked again and again
  # while a server is missing. A listener that runs is only monitored: its address does not change, and a
  # busy one may answer late.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Registry
  alias ExServiceMeshRouter.Registry.Service

  @pause 200

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  defp process_name(name), do: Module.concat(name, GrpcServers)

  @doc "Looks for all servers now; returns when the data plane routes to those that listen."
  def look(name), do: GenServer.call(process_name(name), :look, :infinity)

  @impl true
  def init(config) do
    servers =
      Map.new(config.grpc, fn {server, host} ->
        {server, %{host: host, upstreams: nil, pid: nil, problem: nil}}
      end)

    {:ok, %{name: config.name, servers: servers, timer: nil}, {:continue, :look}}
  end

  @impl true
  def handle_continue(:look, state) do
    for {server, it} <- state.servers, not Code.ensure_loaded?(server) do
      Logger.warning(
        "#{it.host} gets no route: there is no module #{inspect(server)}, which `grpc:` names"
      )
    end

    {:noreply, look_all(state)}
  end

  @impl true
  def handle_call(:look, _from, state), do: {:reply, :ok, look_all(state)}

  @impl true
  def handle_info(:look, state), do: {:noreply, look_all(state)}
  def handle_info({:DOWN, _monitor, :process, _pid, _why}, state), do: {:noreply, look_all(state)}
  # A late answer of a listener.
  def handle_info(_other, state), do: {:noreply, state}

  defp look_all(state) do
    if state.timer, do: Process.cancel_timer(state.timer)

    servers =
      Map.new(state.servers, fn {server, it} -> {server, look(state.name, server, it)} end)

    missing? = Enum.any?(servers, fn {_server, it} -> it.pid == nil end)
    %{state | servers: servers, timer: missing? && Process.send_after(self(), :look, @pause)}
  end

  defp look(name, server, before) do
    if before.pid && Process.alive?(before.pid), do: before, else: ask(name, server, before)
  end

  defp ask(name, server, before) do
    {pid, upstreams, problem} = listener(server)
    if problem && problem != before.problem, do: Logger.warning("#{inspect(server)} #{problem}")

    if upstreams != before.upstreams,
      do: Registry.put(name, Service.grpc(server, before.host, upstreams))

    if pid, do: Process.monitor(pid)
    %{before | pid: pid, upstreams: upstreams, problem: problem}
  end

  # Ranch 1 returns a list, Ranch 2 a map. It raises for an unknown name and exits for a stopped listener,
  # whose address it still has.
  defp listener(server) do
    info = Map.new(apply(:ranch, :info, [inspect(server)]))

    cond do
      info.transport == :ranch_ssl ->
        {info.pid, [], "gets no route: it listens with TLS (`cred:`), and the gateway sends none"}

      info.status == :running and Process.alive?(info.pid) ->
        {info.pid, upstreams(info), nil}

      true ->
        {nil, [], nil}
    end
  rescue
    _unknown -> {nil, [], nil}
  catch
    :exit, _stopped -> {nil, [], nil}
  end

  defp upstreams(%{ip: {:local, _path} = address}), do: bound(address)
  defp upstreams(%{ip: ip, port: port}), do: bound({ip, port})

  defp bound(address) do
    case Upstream.from_bound(address) do
      {:ok, upstream} -> [Upstream.http2(upstream)]
      :error -> []
    end
  end
end
