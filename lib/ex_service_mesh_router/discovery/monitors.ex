defmodule ExServiceMeshRouter.Discovery.Monitors do
  @moduledoc false
  # Keeps the monitors of discovery on the processes of an endpoint: its supervisor, and its servers,
  # for whose exit there is no event.

  @doc "Monitors exactly these processes of an endpoint."
  def put(state, endpoint, pids) do
    wanted = Enum.reject(pids, &is_nil/1)

    if Enum.map(state.endpoints[endpoint].watch, &elem(&1, 0)) == wanted do
      state
    else
      state = drop(state, endpoint)
      watch = for pid <- wanted, do: {pid, Process.monitor(pid)}
      monitors = for {_pid, monitor} <- watch, into: state.monitors, do: {monitor, endpoint}
      %{put_in(state.endpoints[endpoint].watch, watch) | monitors: monitors}
    end
  end

  def drop(state, endpoint) do
    monitors = for {_pid, monitor} <- state.endpoints[endpoint].watch, do: monitor
    Enum.each(monitors, &Process.demonitor(&1, [:flush]))
    %{put_in(state.endpoints[endpoint].watch, []) | monitors: Map.drop(state.monitors, monitors)}
  end
end
