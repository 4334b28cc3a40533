defmodule ExServiceMeshRouter.Discovery.PhoenixEvents do
  @moduledoc false
  # Subscribes to Phoenix's telemetry event for started endpoints. Must only read the two names in it:
  # the event contains the endpoint's whole configuration, including secret_key_base.

  @event [:phoenix, :endpoint, :init]

  @doc "Returns whether the system has telemetry, started or not."
  def available?, do: Code.ensure_loaded?(:telemetry)

  @doc """
  Sends `{:endpoint_started, endpoint, application}` to `pid` from now on. Returns `false` if telemetry
  does not run. A gateway has one subscriber: this replaces the handler of a killed one.
  """
  def subscribe(name, pid) do
    available?() and
      (unsubscribe(name) == :ok and
         apply(:telemetry, :attach, [id(name), @event, &__MODULE__.handle/4, pid]) == :ok)
  catch
    # The telemetry application has not started or is stopping.
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
