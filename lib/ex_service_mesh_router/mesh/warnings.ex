defmodule ExServiceMeshRouter.Mesh.Warnings do
  @moduledoc false
  # Logs what is wrong with a peer once a minute for each peer and kind, however often it happens.

  require Logger

  @pause 60_000
  # Peers choose the keys.
  @most 256

  def new, do: %{}

  @doc "Logs the text unless the key was logged within the last minute. Returns the new state."
  def warn(warned, key, text) do
    now = System.monotonic_time(:millisecond)

    case warned do
      %{^key => time} when now - time < @pause ->
        warned

      _ ->
        Logger.warning("mesh: " <> text)
        warned = if map_size(warned) >= @most, do: %{}, else: warned
        Map.put(warned, key, now)
    end
  end
end
