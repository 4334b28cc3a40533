defmodule ExServiceMeshRouter.ConfigError do
  @moduledoc """
  Reports every mistake in the configuration.

  `mistakes` is a list of maps with the `key`, the `value` that it has, and the `expected` values.
  """

  defexception mistakes: []

  @type t :: %__MODULE__{mistakes: [map()]}

  @impl true
  def message(%{mistakes: mistakes}) do
    lines = Enum.map_join(mistakes, "\n", &("  * " <> line(&1)))
    "invalid configuration of :ex_service_mesh_router\n" <> lines
  end

  defp line(%{unknown: true} = mistake), do: "#{mistake.key}: unknown key, #{mistake.expected}"

  defp line(mistake) do
    "#{mistake.key}: got #{inspect(mistake.value, limit: 5, printable_limit: 200)}, " <>
      "expected #{mistake.expected}"
  end
end
