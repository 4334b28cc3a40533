defmodule ExServiceMeshRouter.Discovery.Settled do
  @moduledoc false
  # Tells those who wait when discovery has nothing left to ask: for tests, which must not sleep.

  @doc "Returns when all endpoints that are known now have been asked, and have answered."
  def await(discovery, timeout), do: GenServer.call(discovery, :settled, timeout)

  def tell(%{waiting: []} = state), do: state

  def tell(state) do
    if map_size(state.probes) == 0 and not Enum.any?(state.endpoints, &waits?/1) do
      Enum.each(state.waiting, &GenServer.reply(&1, :ok))
      %{state | waiting: []}
    else
      state
    end
  end

  defp waits?({_endpoint, known}), do: known.retrying?
end
