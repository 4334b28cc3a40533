defmodule ExServiceMeshRouter.Doctor.Umbrella do
  @moduledoc false
  # Finds the applications of the umbrella that depend on the gateway. Calls Mix, so only Mix tasks may
  # use it.

  @name :ex_service_mesh_router

  @doc """
  Returns `nil` if there is no umbrella or it does not have the gateway. Otherwise a map:

    * `dependency` - the dependency in the root, or `nil`
    * `declared` - the dependency in an application, or `nil`
    * `dependents` - the applications that depend on the gateway
    * `before` - the applications that Mix starts before the gateway, in that order
    * `apps` - `%{app, path}` of all applications, the web applications first
  """
  def gather do
    with paths when is_map(paths) <- apply(Mix.Project, :apps_paths, []) do
      apps = for {app, path} <- paths, do: %{app: app, path: path, deps: deps(app, path)}
      apps = Enum.sort_by(apps, &{not web?(&1.app), &1.app})

      umbrella = %{
        dependency: dependency(apply(Mix.Project, :config, [])[:deps]),
        declared: Enum.find_value(apps, &dependency(&1.deps)),
        dependents: for(%{app: app, deps: deps} <- apps, started?(dependency(deps)), do: app),
        before: before(apps),
        apps: for(app <- apps, do: Map.delete(app, :deps))
      }

      if umbrella.dependency || umbrella.declared, do: umbrella
    end
  end

  defp before(apps) do
    deps = Map.new(apps, &{&1.app, &1.deps})
    Enum.take_while(start_order(apps), &(not starts?(&1, deps)))
  end

  # A private function of Mix.
  defp start_order(apps) do
    for %{app: app} <- apply(Mix.Dep.Umbrella, :cached, []), do: app
  rescue
    _ -> apps |> Enum.map(& &1.app) |> Enum.sort()
  end

  # Whether the gateway starts before an application.
  defp starts?(app, deps) do
    started?(dependency(deps[app])) or
      Enum.any?(deps[app], fn dependency ->
        name = elem(dependency, 0)
        name != app and is_map_key(deps, name) and starts?(name, deps)
      end)
  end

  defp deps(app, path) do
    apply(Mix.Project, :in_project, [
      app,
      path,
      fn _module -> Mix.Project.config()[:deps] || [] end
    ])
  end

  defp dependency(deps), do: Enum.find(deps || [], &(elem(&1, 0) == @name))

  # Mix compiles a dependency with `runtime: false` and does not start it.
  defp started?(nil), do: false

  defp started?(dependency) do
    options = dependency |> Tuple.to_list() |> List.last()
    not is_list(options) or options[:runtime] != false
  end

  defp web?(app), do: app |> Atom.to_string() |> String.ends_with?("_web")
end
