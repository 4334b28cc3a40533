defmodule ExServiceMeshRouter.Doctor.Checks.RootDependency do
  @moduledoc false
  # Mix compiles the dependencies of an umbrella's root and does not start them.

  alias ExServiceMeshRouter.Doctor.Fix

  def findings(%{umbrella: %{dependency: dependency, dependents: [], apps: [app | _]}})
      when dependency != nil do
    [
      %{
        problem: "ex_service_mesh_router is a dependency of the umbrella's root only",
        why: "Mix does not start it, because no application of the umbrella depends on it.",
        file: "#{app.path}/mix.exs, among the `deps`",
        fix: dependency |> moved(app.path) |> Fix.dependency()
      }
    ]
  end

  def findings(_snapshot), do: []

  # A relative path is relative to the project of the mix.exs.
  defp moved({name, options}, path) when is_list(options), do: {name, moved_path(options, path)}

  defp moved({name, version, options}, path), do: {name, version, moved_path(options, path)}
  defp moved(dependency, _path), do: dependency

  defp moved_path(options, path) do
    case options[:path] do
      nil ->
        options

      given ->
        if Path.type(given) == :absolute do
          options
        else
          up = path |> Path.split() |> Enum.map(fn _ -> ".." end)
          Keyword.put(options, :path, Path.join(up ++ [given]))
        end
    end
  end
end
