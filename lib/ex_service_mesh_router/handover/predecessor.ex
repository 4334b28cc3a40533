defmodule ExServiceMeshRouter.Handover.Predecessor do
  @moduledoc false
  # The side of the running gateway in one handover: gives its listening sockets, stops accepting for one
  # round trip, and drains once the other gateway accepts. If the connection ends before that, it goes on.

  require Logger

  alias ExServiceMeshRouter.{Gateway, Native}
  alias ExServiceMeshRouter.Gateway.Event
  alias ExServiceMeshRouter.Handover.{Calls, Request, Services, Wire}

  @answer 5_000
  @count_every 250
  @closed_after 300

  def run(socket, message, peer, offer, config) do
    # It waits most of the time, and clients wait while it does not.
    Process.flag(:priority, :high)

    state = %{
      socket: socket,
      peer: peer.pid,
      offer: offer,
      config: config,
      name: config.name,
      started: System.monotonic_time()
    }

    with :ok <- protocol(message),
         :ok <- fits(message, config, ips(config)),
         :ok <- Calls.begin(offer, {peer.pid, message["gateway"]}),
         [_ | _] = descriptors <- Gateway.share(state.name) do
      give(state, descriptors)
    else
      {:error, why} ->
        log(:warning, "this gateway does not hand its port over to process #{peer.pid}: #{why}")
        Wire.send(socket, "refused", %{why: why, version: Request.version()})

      # The other one binds then. The sockets are closed by the end of the pause.
      [] ->
        Process.sleep(@closed_after)
        Wire.send(socket, "stopped")
    end
  end

  defp protocol(%{"protocol" => protocol} = message) do
    if protocol == Wire.protocol(), do: :ok, else: {:error, Request.other(message)}
  end

  defp fits(%{"port" => port, "ips" => ips}, config, own)
       when is_integer(port) and is_list(ips) do
    more = own -- ips

    cond do
      port != config.port ->
        {:error,
         "it listens on port #{config.port}, and the other one is to listen on port #{port}"}

      more != [] ->
        {:error,
         "it listens on #{Enum.join(more, ", ")}, too, and the other one is not to listen there; stop " <>
           "this one, then start the other"}

      true ->
        :ok
    end
  end

  defp fits(_message, _config, _own), do: {:error, "the question has no `port` and `ips`"}

  # A socket of systemd for IPv4 and IPv6 has one bound address, and serves two.
  defp ips(%{name: name, native: native}) do
    if Gateway.keep_queue?(name),
      do: native.ips,
      else: for({ip, _port} <- Gateway.addresses(name), do: ip)
  end

  defp give(state, descriptors) do
    sent = Wire.send(state.socket, "sockets", about(state), descriptors)
    Native.close_listeners(descriptors)
    log(:info, "process #{state.peer} takes the port over once it is ready")
    event(:start, %{system_time: System.system_time()}, state)
    if sent == :ok, do: await_ready(state), else: failed(state, "it has gone")
  end

  defp about(state) do
    %{
      version: Request.version(),
      pid: Request.own_pid(),
      # Which the descriptors serve.
      ips: ips(state.config),
      keep_queue: Gateway.keep_queue?(state.name),
      services: Services.listening(state.name)
    }
  end

  defp await_ready(state) do
    case Wire.recv(state.socket, :infinity) do
      {:ok, %{"type" => "pause"}} -> pause(state)
      {:ok, %{"type" => "failed", "why" => why}} when is_binary(why) -> failed(state, why)
      {:ok, %{"type" => type}} -> refuse(state, "unknown message #{inspect(type)}")
      {:error, :closed} -> failed(state, "it ended before it was ready")
      {:error, why} -> refuse(state, "#{why}")
    end
  end

  defp refuse(state, why) do
    Wire.send(state.socket, "refused", %{why: why})
    failed(state, why)
  end

  defp pause(state) do
    began = System.monotonic_time()
    Native.accept(Gateway.ref(state.name), false)

    with :ok <- Wire.send(state.socket, "paused", connections(state)),
         {:ok, %{"type" => "serving"}} <- Wire.recv(state.socket, @answer) do
      served(state, began)
    else
      {:error, :timeout} -> failed(state, "it did not serve within #{@answer} ms")
      _closed -> failed(state, "it ended before it served")
    end
  end

  defp served(state, began) do
    now = System.monotonic_time()
    event(:stop, %{duration: now - state.started, pause: now - began}, state)
    Calls.replaced(state.offer, state.peer)
    Wire.send(state.socket, "draining", connections(state))
    follow(state)
  end

  # Until the connections of this gateway have ended, or the other gateway.
  defp follow(state) do
    unless Gateway.drained?(state.name) or Wire.poll(state.socket, @count_every) != :timeout do
      Wire.send(state.socket, "connections", connections(state))
      follow(state)
    end
  end

  defp connections(state) do
    {total, clients} = Native.connections(Gateway.ref(state.name))
    %{total: total, clients: for({ip, count} <- clients, do: [ip, count])}
  end

  defp failed(state, why) do
    if Calls.keep(state.offer) do
      log(:warning, "process #{state.peer} has not taken the port over, this one goes on: #{why}")
    end

    duration = System.monotonic_time() - state.started
    event(:exception, %{duration: duration}, state, %{reason: why})
  end

  defp event(event, measurements, state, more \\ %{}) do
    metadata = Map.merge(%{gateway: state.name, role: :previous, peer: state.peer}, more)
    Event.execute([:handover, event], measurements, metadata)
  end

  defp log(level, text), do: Logger.log(level, "gateway handover: #{text}")
end
