defmodule ExServiceMeshRouter.Config.Environment do
  @moduledoc false
  # Tells development from production, for defaults that depend on it.

  @doc "Returns whether the system runs under Mix with `MIX_ENV=dev`. A release never does."
  def development?, do: Process.whereis(Mix.Supervisor) != nil and apply(Mix, :env, []) == :dev
end
