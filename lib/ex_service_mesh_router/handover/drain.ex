defmodule ExServiceMeshRouter.Handover.Drain do
  @moduledoc false
  # What the previous gateway does after another one has taken over: drains, and stops its VM if `stop` is set.

  require Logger

  alias ExServiceMeshRouter.Gateway
  alias ExServiceMeshRouter.Handover.State

  @doc "Begins to drain. `peer` is the process that has taken over."
  def begin(config, peer) do
    Logger.info("gateway handover: process #{peer} has taken the port over; this one drains")
    Gateway.release(config.name)
    State.put(config.name, :handed_over, peer)
    State.delete(config.name, :handing_over)
  end

  @doc "Says once that all is drained, and stops the VM if it is to stop."
  def stop_if_drained(%{name: name} = config) do
    if State.handed_over?(name) and Gateway.drained?(name) and not State.get(name, :left, false) do
      State.put(name, :left, true)
      stop(config.handover.stop)
    end
  end

  defp stop(false), do: Logger.info("gateway handover: this gateway has drained")

  defp stop(true) do
    Logger.info("gateway handover: this gateway has drained; stops its VM")
    System.stop()
  end
end
