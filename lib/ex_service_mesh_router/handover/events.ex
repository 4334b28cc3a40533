defmodule ExServiceMeshRouter.Handover.Events do
  @moduledoc false
  # The log lines and telemetry events of the new gateway.

  require Logger

  alias ExServiceMeshRouter.Gateway.Event
  alias ExServiceMeshRouter.Handover.State

  def taking(state, peer) do
    event(:start, state, %{system_time: System.system_time()})
    log(:info, "takes the port over from process #{peer} once this system is ready")
  end

  def stale(state) do
    path = state.config.handover.path

    log(
      :warning,
      "no gateway answers on #{path}, which one left behind; this one listens as usual"
    )
  end

  def previous_gone(state),
    do: log(:warning, "process #{peer(state)} has gone; takes over once this system is ready")

  def late(state, missing) do
    log(
      :warning,
      "accepts connections, though this system is not ready: #{Enum.join(missing, ", ")}. Process " <>
        "#{peer(state)}, which had the port, has gone"
    )
  end

  def previous_hangs(state),
    do: log(:warning, "process #{peer(state)} does not answer; takes the port over without it")

  def previous_drained(state), do: log(:info, "process #{peer(state)} has drained or ended")

  def ready(state) do
    log(
      :info,
      "this system is ready; `mix mesh.handover --take` takes the port over from process #{peer(state)}"
    )
  end

  def taken(state, paused) do
    duration = System.monotonic_time() - state.started
    event(:stop, state, %{duration: duration, pause: paused})

    log(
      :info,
      "has the port after #{milliseconds(duration)} ms; no connections were accepted for " <>
        "#{milliseconds(paused)} ms. Process #{peer(state)} drains"
    )
  end

  def failed(state, why) do
    log(:error, "does not take over from process #{peer(state)} and stops: #{why}")
    duration = System.monotonic_time() - state.started
    event(:exception, state, %{duration: duration}, %{reason: why})
  end

  defp milliseconds(time), do: System.convert_time_unit(time, :native, :millisecond)

  defp peer(state), do: State.get(state.name, :peer)

  defp event(event, state, measurements, more \\ %{}) do
    metadata = Map.merge(%{gateway: state.name, role: :successor, peer: peer(state)}, more)
    Event.execute([:handover, event], measurements, metadata)
  end

  defp log(level, text), do: Logger.log(level, "gateway handover: #{text}")
end
