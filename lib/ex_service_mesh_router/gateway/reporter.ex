defmodule ExServiceMeshRouter.Gateway.Reporter do
  @moduledoc false
  # Receives batches from the data plane's collector thread: request records for telemetry, access log
  # lines for Logger, and notices for the log. It acknowledges each batch; without that, the data plane
  # drops later records.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{ConfigError, Gateway, Native}
  alias ExServiceMeshRouter.Gateway.{Event, Signal}

  def start_link(config) do
    GenServer.start_link(__MODULE__, config, name: process_name(config.name))
  end

  @doc "Executes the telemetry events of changed routes, in the Reporter's process."
  def routes(_name, []), do: :ok

  def routes(name, events) do
    with pid when is_pid(pid) <- Process.whereis(process_name(name)),
         do: send(pid, {:routes, events})

    :ok
  end

  defp process_name(name), do: Module.concat(name, Reporter)

  @impl true
  def init(config) do
    Process.flag(:trap_exit, true)
    # Batches are large; the garbage collector must not copy waiting ones.
    Process.flag(:message_queue_data, :off_heap)
    gateway = Gateway.ref(config.name)

    case Native.observe(gateway, config.observe, self()) do
      :ok ->
        file? = is_binary(config.observe.access_log[:to])
        if file?, do: Signal.add(:sighup, config.name, fn -> reopen_log(config.name) end)
        {:ok, %{name: config.name, gateway: gateway, file?: file?}}

      {:error, why} ->
        {:stop, {:shutdown, error(why, config.observe.access_log)}}
    end
  end

  # In a separate process: a crash would remove the signal handler.
  defp reopen_log(name), do: spawn(fn -> name |> Gateway.ref() |> Native.reopen_log() end)

  defp error({:log_file, why}, %{to: path}) do
    expected = "a file that can be written (#{why})"
    mistake = %{key: "access_log.to", value: path, expected: expected, unknown: false}
    %ConfigError{mistakes: [mistake]}
  end

  defp error({:thread, why}, _log) do
    %RuntimeError{
      message:
        "the gateway cannot start its thread for logs and telemetry: #{why}. " <>
          "This user or container has probably reached its limit of threads (`ulimit -u`)."
    }
  end

  defp error({_other, why}, _log),
    do: %RuntimeError{message: "the gateway cannot start its logs and telemetry: #{why}"}

  @impl true
  def handle_info({:mesh, :records, records}, state) do
    if Event.started?(), do: Enum.each(records, &request(&1, state))
    taken(state, length(records))
  end

  def handle_info({:mesh, :lines, lines}, state) do
    Enum.each(lines, &Logger.info(&1, mesh: :access_log))
    taken(state, length(lines))
  end

  def handle_info({:mesh, :notices, notices}, state) do
    Enum.each(notices, &notice(&1, state))
    {:noreply, state}
  end

  def handle_info({:routes, events}, state) do
    for {event, metadata} <- events,
        do: Event.now(event, Map.put(metadata, :gateway, state.name))

    {:noreply, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  # `observe` returns after the last batch was sent. After a crash, the data plane continues to write
  # its log, and the next Reporter takes over.
  @impl true
  def terminate(reason, state) do
    if reason == :shutdown, do: stop_observing(state)
    drain(state)
  end

  defp stop_observing(state) do
    if state.file?, do: Signal.remove(:sighup, state.name)

    try do
      Native.observe(state.gateway, nil, self())
    rescue
      # The reference is lost, see Worker.
      ArgumentError -> :ok
    end
  end

  defp drain(state) do
    receive do
      {:mesh, _, _} = message ->
        handle_info(message, state)
        drain(state)
    after
      0 -> :ok
    end
  end

  defp taken(state, count) do
    Native.taken(state.gateway, count)
    {:noreply, state}
  rescue
    ArgumentError -> {:noreply, state}
  end

  @durations [:duration, :first_byte_duration, :gateway_duration]

  defp request({measurements, metadata}, state) do
    measurements =
      Enum.reduce(@durations, measurements, fn key, measurements ->
        case measurements do
          %{^key => nanos} ->
            %{measurements | key => System.convert_time_unit(nanos, :nanosecond, :native)}

          _ ->
            measurements
        end
      end)

    Event.deliver([:request, :stop], measurements, Map.put(metadata, :gateway, state.name))
  end

  # These limits affect a service or the node. The others affect one client, which gets an error.
  @warned ["connections", "connections_per_client", "held_requests"]

  defp notice({:limit, limit, count}, state) do
    level = if limit in @warned, do: :warning, else: :info
    key = if String.contains?(limit, "."), do: limit, else: "limits.#{limit}"
    Logger.log(level, "gateway: #{key} was reached #{times(count)}")
    Event.execute([:limit, :reached], %{count: count}, %{gateway: state.name, limit: limit})
  end

  defp notice({:upstream_down, service, count}, state) do
    Logger.warning("gateway: cannot connect to #{service}; check that it runs and listens")

    Event.execute([:upstream, :down], %{count: count}, %{
      gateway: state.name,
      service: service
    })
  end

  defp notice({:upstream_up, service, count}, state) do
    Logger.info("gateway: connected to #{service} again")
    Event.execute([:upstream, :up], %{count: count}, %{gateway: state.name, service: service})
  end

  defp notice({:peer_suspect, about, count}, state) do
    {node, why} = peer(about)

    Logger.warning(
      "gateway: the gateway of #{node} does not answer#{why}; new requests go to other nodes that have " <>
        "its endpoints"
    )

    peer_event(:suspect, count, state, %{node: node})
  end

  defp notice({:peer_lost, about, count}, state) do
    {node, why} = peer(about)
    Logger.warning("gateway: the gateway of #{node} is lost#{why}; its connections were closed")
    peer_event(:down, count, state, %{node: node})
  end

  defp notice({:peer_up, about, count}, state) do
    {node, _why} = peer(about)
    Logger.info("gateway: the gateway of #{node} answers")
    peer_event(:up, count, state, %{node: node})
  end

  defp notice({:peer_unreachable, text, count}, state) do
    # "node: address: reason"; an IPv6 address is in brackets.
    {node, address, reason} =
      case String.split(text, ": ", parts: 3) do
        [node, address, reason] -> {node, address, reason}
        [node | rest] -> {node, "its addresses", Enum.join(rest, ": ")}
      end

    Logger.warning(
      "gateway: cannot reach the gateway of #{node} at #{address}: #{reason}. Requests go to others " <>
        "that have its endpoints, or get a 502. Check that a firewall allows the port; on #{node}, " <>
        "`mesh: [port: 4600]` sets it and `mesh: [advertise: \"HOST:PORT\"]` says where it is reached"
    )

    peer_event(:unreachable, count, state, %{node: node, address: address, reason: reason})
  end

  defp notice({:mesh_stranger, text, count}, state) do
    [client | reason] = String.split(text, ": ", parts: 2)
    reason = Enum.join(reason)

    Logger.warning(
      "gateway: refused connections to the mesh port #{times(count)}, from #{client}: #{reason}. " <>
        "Only the other nodes of the cluster may connect to it; a firewall should keep others away"
    )

    peer_event(:refused, count, state, %{client: client, reason: reason})
  end

  defp notice({:bad_response, service_and_reason, count}, _state) do
    Logger.warning(
      "gateway: a response was not valid HTTP, #{times(count)}: #{service_and_reason}"
    )
  end

  defp notice({:not_http2, address_and_what, count}, _state) do
    Logger.warning(
      "gateway: #{address_and_what}, #{times(count)}; its requests get a 502. An \"h2c\" upstream must " <>
        "speak HTTP/2 without TLS; use \"http://\" or \"unix:\" for one that speaks HTTP/1.1, and leave such " <>
        "an endpoint out of `http2`"
    )
  end

  defp notice({:panic, _, count}, _state),
    do: Logger.error("gateway: the data plane panicked #{times(count)}; each lost one connection")

  defp notice({:accept, why, count}, _state),
    do: Logger.error("gateway: failed to accept connections #{times(count)}: #{why}")

  defp notice({:connect, why, count}, _state),
    do: Logger.error("gateway: failed to open connections to endpoints #{times(count)}: #{why}")

  defp notice({:log_file, why, _count}, _state),
    do: Logger.error("gateway: cannot write the access log: #{why}")

  defp notice({:records_lost, _, count}, _state) do
    Logger.warning(
      "gateway: #{count} requests are missing from the access log or telemetry, whose consumer is too slow"
    )
  end

  # "b@host" or "b@host: why".
  defp peer(about) do
    case String.split(about, ": ", parts: 2) do
      [node] -> {node, ""}
      [node, why] -> {node, " (#{why})"}
    end
  end

  defp peer_event(event, count, state, metadata) do
    metadata = Map.put(metadata, :gateway, state.name)
    Event.execute([:peer, event], %{count: count}, metadata)
  end

  defp times(1), do: "once"
  defp times(count), do: "#{count} times"
end
