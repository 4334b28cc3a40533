import Config

# `iex -S mix` is a running gateway; .iex.exs starts the demo's services behind it. Their streams may
# still run when the shell ends, and are not worth waiting for.
config :ex_service_mesh_router,
  server: true,
  port: String.to_integer(System.get_env("PORT", "4000")),
  discover: false,
  timeouts: [drain: 500]

config :logger, level: :info
