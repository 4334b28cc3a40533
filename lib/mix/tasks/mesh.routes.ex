defmodule Mix.Tasks.Mesh.Routes do
  @shortdoc "Lists which host goes where"

  @moduledoc """
  Lists the routes: each host, the service it goes to, where that listens, and since when.

      mix mesh.routes
      mix mesh.routes --json

  If a gateway answers on the configured port of this machine and its index lets us in (as it does
  in development), these are its own routes, the addresses of private listeners and those of
  services that were put at run time included.

  Otherwise nothing is started, and the configuration of all applications is read as
  `mix phx.server` would: what an endpoint is called, and which listener it will have. What an
  endpoint is given only when it is started (options of its child specification, an `init/2`) cannot
  be known then, and neither can `put_service/2`. Set `MIX_ENV` for the configuration of another
  environment, and run it in the root of an umbrella, for an application alone knows only itself and
  its dependencies.

  ## Options

    * `--json` - prints `{"running": ..., "port": ..., "routes": [...]}`. A route has `host`,
      `service`, `application`, `upstreams`, `source`, `derived` (from the name of the application),
      and, where the gateway runs, `state` and `since`
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

  # What `mix phx.server` would do is asked, not what this task does.
  defp serving(fun) do
    before = Application.fetch_env(:phoenix, :serve_endpoints)
    Application.put_env(:phoenix, :serve_endpoints, true)
    result = fun.()
    if before == :error, do: Application.delete_env(:phoenix, :serve_endpoints)
    result
  end

  defp print(listing, true) do
    Json.encode(running: listing.running?, port: listing.port, routes: listing.routes)
    |> then(&[&1, "\n"])
  end

  defp print(listing, _text), do: RouteListing.text(listing)
end
