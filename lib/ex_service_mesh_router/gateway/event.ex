defmodule ExServiceMeshRouter.Gateway.Event do
  @moduledoc false
  # Executes telemetry events; the catalogue of all events is ExServiceMeshRouter.Telemetry. Nothing
  # here is compiled against telemetry: the application may not have it.

  @doc "Executes an event that has happened now."
  def now(event, metadata), do: execute(event, %{system_time: System.system_time()}, metadata)

  def execute(event, measurements, metadata) do
    if started?(), do: deliver(event, measurements, metadata), else: :ok
  end

  @doc "For many events at once, when telemetry has started: asking costs more than an event."
  def deliver(event, measurements, metadata) do
    apply(:telemetry, :execute, [[:ex_service_mesh_router | event], measurements, metadata])
    :ok
  rescue
    # It stops at this moment.
    ArgumentError -> :ok
  end

  # Mix may start the gateway before telemetry. Nobody can be listening then, and telemetry would
  # log a warning that nobody can do anything about.
  @doc "Whether telemetry runs."
  def started? do
    Process.whereis(:telemetry_sup) != nil or
      (Code.ensure_loaded?(:telemetry) and not Code.ensure_loaded?(:telemetry_app))
  end
end
