defmodule Mix.Tasks.Mesh.Routes do
  @shortdoc "Lists the routes: hosts, services and upstreams"

  @moduledoc """
  Lists the routes: each host, its service, the upstreams, and the state. Of a running gateway it also
  prints the state of the mesh, and the nodes that requests avoid.

      mix mesh.routes
      mix mesh.routes --json

  If a gateway answers on the configured port of this machine and its index allows this client (as in
  development), the task lists the gateway's routes, including private listeners and services that were
  put at run time.

  Otherwise it reads the configuration of all applications as `mix phx.server` would: the hosts and the
  listeners of endpoints. It starts nothing, so it cannot know options that an endpoint gets at its
  start (child specification, `init/2`), and services of `put_service/2`. Set `MIX_ENV` to read the
  configuration of another environment. In an umbrella, run it in the root: an application only knows
  itself and its dependencies.

  ## Options

    * `--json` - prints `{"running": ..., "port": ..., "routes": [...], "mesh": ...}`. A route has
      `host`, `service`, `application`, `upstreams`, `peers` (those of the upstreams that are other
      nodes, with their states), `source`, `derived` (from the name of the application), and, if the
      gateway runs, `state`, `since`, and `in_vm` as in `t:ExServiceMeshRouter.service/0`. `mesh` is as in `ExServiceMeshRouter.Mesh`, or `null` if no
      gateway runs
  """

  use Mix.Task

  alias ExServiceMeshRouter.{ConfigError, Json}
  alias ExServiceMeshRouter.Console.RouteListing

  @impl true
  def run(arguments) do
    {options, _rest} = OptionParser.parse!(arguments, strict: [json: :boolean])
    Mix.Task.run("app.config")

    environment =
      Application.get_all_env(:ex_service_mesh_router) |> Keyword.delete(:included_applications)

    case serving(fn -> RouteListing.new(environment) end) do
      {:ok, listing} -> listing |> print(options[:json]) |> IO.write()
      {:error, %ConfigError{} = error} -> Mix.raise(Exception.message(error))
    end
  end

  # The listing is about `mix phx.server`, not about this task.
  defp serving(fun) do
    before = Application.fetch_env(:phoenix, :serve_endpoints)
    Application.put_env(:phoenix, :serve_endpoints, true)
    result = fun.()
    if before == :error, do: Application.delete_env(:phoenix, :serve_endpoints)
    result
  end

  defp print(listing, true) do
    Json.encode(
      running: listing.running?,
      port: listing.port,
      routes: listing.routes,
      mesh: listing.mesh
    )
    |> then(&[&1, "\n"])
  end

  defp print(listing, _text), do: RouteListing.text(listing)
end
