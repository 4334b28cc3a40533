defmodule ExServiceMeshRouter.Discovery.PhoenixEvents do
  @moduledoc false
  # Phoenix says by telemetry when an endpoint has started. The event carries the endpoint's whole
  # configuration, secret_key_base included: only the two names are taken out of it.

  @event [:phoenix, :endpoint, :init]

  @doc "Whether there is telemetry in this system, started or not."
  def available?, do: Code.ensure_loaded?(:telemetry)

  @doc """
  Sends `{:endpoint_started, endpoint, application}` to `pid` from now on, if it can. A gateway has one
  subscriber: this replaces the handler of one that was killed.
  """
  def subscribe(name, pid) do
    available?() and
      (unsubscribe(name) == :ok and
         apply(:telemetry, :attach, [id(name), @event, &__MODULE__.handle/4, pid]) == :ok)
  catch
    # The application of telemetry has not started, or is about to stop.
    _kind, _reason -> false
  end

  def unsubscribe(name) do
    apply(:telemetry, :detach, [id(name)])
    :ok
  catch
    _kind, _reason -> :ok
  end

  @doc false
  def handle(@event, _measurements, %{module: endpoint} = metadata, pid) do
    send(pid, {:endpoint_started, endpoint, Map.get(metadata, :otp_app)})
  end

  def handle(@event, _measurements, _metadata, _pid), do: :ok

  defp id(name), do: {__MODULE__, name}
end
