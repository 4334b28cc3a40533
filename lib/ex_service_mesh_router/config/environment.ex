defmodule ExServiceMeshRouter.Config.Environment do
  @moduledoc false
  # The one notion of development that defaults depend on.

  @doc """
  Whether this is a developer's machine: only where Mix runs the system is there an environment; a
  release has none.
  """
  def development?, do: Process.whereis(Mix.Supervisor) != nil and apply(Mix, :env, []) == :dev
end
