defmodule ExServiceMeshRouter.Gateway.Event do
  @moduledoc false
  # Executes telemetry events, which ExServiceMeshRouter.Telemetry documents. Must not depend on
  # telemetry at compile time: the application may not have it.

  @doc "Executes an event with the current system time."
  def now(event, metadata), do: execute(event, %{system_time: System.system_time()}, metadata)

  def execute(event, measurements, metadata) do
    if started?(), do: deliver(event, measurements, metadata), else: :ok
  end

  @doc "Executes an event without the check that telemetry runs, which costs more than the event."
  def deliver(event, measurements, metadata) do
    apply(:telemetry, :execute, [[:ex_service_mesh_router | event], measurements, metadata])
    :ok
  rescue
    # Telemetry is stopping.
    ArgumentError -> :ok
  end

  # Mix may start the gateway before telemetry. No handler exists then, and telemetry would log a
  # warning.
  @doc "Returns whether telemetry runs."
  def started? do
    Process.whereis(:telemetry_sup) != nil or
      (Code.ensure_loaded?(:telemetry) and not Code.ensure_loaded?(:telemetry_app))
  end
end
