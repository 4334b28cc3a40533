# A gateway in front of a gRPC server: PORT is its port, GRPC_PORT the server's. An application configures
# the same under `config :ex_service_mesh_router`.
[port, grpc_port] = for name <- ["PORT", "GRPC_PORT"], do: String.to_integer(System.fetch_env!(name))
Logger.configure(level: :warning)

{:ok, _gateway} =
  ExServiceMeshRouter.Supervisor.start_link(
    port: port,
    discover: false,
    services: %{"grpc.localhost" => "h2c://127.0.0.1:#{grpc_port}"},
    access_log: [format: :logfmt, to: System.fetch_env!("ACCESS_LOG")]
  )

IO.puts(ExServiceMeshRouter.port())
# Ends with its caller, which holds the other end of its input.
IO.read(:line)
