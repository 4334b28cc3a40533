defmodule ExServiceMeshRouter.Doctor.Umbrella do
  @moduledoc false
  # Who depends on the gateway in the umbrella at hand. Asks Mix, so it is for Mix tasks only.

  @name :ex_service_mesh_router

  @doc """
  `%{dependency: as written, dependents: [app], apps: [%{app, path}]}`, the web applications first;
  `nil` where there is no umbrella, or where its root does not name the gateway.
  """
  def gather do
    with paths when is_map(paths) <- apply(Mix.Project, :apps_paths, []),
         dependency when dependency != nil <- dependency(apply(Mix.Project, :config, [])[:deps]) do
      apps = for {app, path} <- paths, do: %{app: app, path: path, deps: deps(app, path)}
      apps = Enum.sort_by(apps, &{not web?(&1.app), &1.app})

      %{
        dependency: dependency,
        dependents: for(%{app: app, deps: deps} <- apps, started?(dependency(deps)), do: app),
        apps: for(app <- apps, do: Map.delete(app, :deps))
      }
    else
      _ -> nil
    end
  end

  defp deps(app, path) do
    apply(Mix.Project, :in_project, [
      app,
      path,
      fn _module -> Mix.Project.config()[:deps] || [] end
    ])
  end

  defp dependency(deps), do: Enum.find(deps || [], &(elem(&1, 0) == @name))

  # `runtime: false` is compiled, and not started.
  defp started?(nil), do: false

  defp started?(dependency) do
    options = dependency |> Tuple.to_list() |> List.last()
    not is_list(options) or options[:runtime] != false
  end

  defp web?(app), do: app |> Atom.to_string() |> String.ends_with?("_web")
end
