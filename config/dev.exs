import Config

# `iex -S mix` starts a gateway; .iex.exs starts the demo's services behind it. The short drain ends
# their streams with the shell.
config :ex_service_mesh_router,
  server: true,
  port: String.to_integer(System.get_env("PORT", "4000")),
  discover: false,
  timeouts: [drain: 500]

config :logger, level: :info
