# Starts the demo's two services behind the gateway of config/dev.exs. They are a separate application,
# so that they survive a crash of the shell's evaluator.
if Code.ensure_loaded?(Demo.Application) && ExServiceMeshRouter.port() do
  applications = [:ex_service_mesh_router, :crypto]
  demo = [vsn: ~c"0", applications: applications, mod: {Demo.Application, []}]
  :ok = :application.load({:application, :demo, demo})
  {:ok, _started} = Application.ensure_all_started(:demo)
  IO.puts(Demo.welcome(ExServiceMeshRouter.port()))
end
