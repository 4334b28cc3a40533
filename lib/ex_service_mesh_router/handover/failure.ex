defmodule ExServiceMeshRouter.Handover.Failure do
  @moduledoc false
  # Stops a gateway that could not take over. Its supervisor must not start it again and again: for some
  # seconds every start fails with the same error, so that the supervisor gives up and the application
  # ends. The port belongs to the other gateway all the time.

  alias ExServiceMeshRouter.ListenError

  @remembered 5_000

  @doc "Returns the error of a gateway that cannot take over."
  def error(config, why),
    do: %ListenError{kind: :handover, port: config.port, detail: why}

  @doc "Returns the error with which this gateway was stopped a moment ago, or `nil`."
  def recent(name) do
    with {time, error} <- :persistent_term.get({__MODULE__, name}, nil),
         true <- now() - time < @remembered,
         do: error,
         else: (_ -> nil)
  end

  @doc "Stops the gateway, without waiting."
  def stop(config, why) do
    error = error(config, why)
    :persistent_term.put({__MODULE__, config.name}, {now(), error})
    supervisor = Module.concat(config.name, Supervisor)
    spawn(fn -> Supervisor.stop(supervisor, {:shutdown, error}, :infinity) end)
  end

  @doc "Says what was missing when `ready_timeout` was over."
  def not_ready({:missing, missing}, %{config: %{handover: %{ready_timeout: timeout}}}) do
    "this system was not ready after #{timeout} ms (`handover: [ready_timeout: ...]`): " <>
      Enum.join(missing, ", ")
  end

  defp now, do: System.monotonic_time(:millisecond)
end
