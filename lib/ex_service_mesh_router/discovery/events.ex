defmodule ExServiceMeshRouter.Discovery.Events do
  @moduledoc false
  # Phoenix says by telemetry when an endpoint has started. The event carries the endpoint's whole
  # configuration, secret_key_base included: only the two names are taken out of it.

  @event [:phoenix, :endpoint, :init]

  @doc "Whether there is telemetry in this system, started or not."
  def available?, do: Code.ensure_loaded?(:telemetry)

  @doc "Sends `{:endpoint_started, endpoint, application}` to `pid` from now on, if it can."
  def subscribe(pid) do
    available?() and
      apply(:telemetry, :attach, [id(pid), @event, &__MODULE__.handle/4, pid]) == :ok
  catch
    # The application of telemetry has not started, or is about to stop.
    _kind, _reason -> false
  end

  def unsubscribe(pid) do
    apply(:telemetry, :detach, [id(pid)])
    :ok
  catch
    _kind, _reason -> :ok
  end

  @doc false
  def handle(@event, _measurements, %{module: endpoint} = metadata, pid) do
    send(pid, {:endpoint_started, endpoint, Map.get(metadata, :otp_app)})
  end

  def handle(@event, _measurements, _metadata, _pid), do: :ok

  defp id(pid), do: {__MODULE__, pid}
end
