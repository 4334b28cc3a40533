import Config

# What is no number is handed on as it is: the gateway says what it accepts.
port =
  case System.get_env("PORT", "") do
    "" -> 4000
    text -> with {port, ""} <- Integer.parse(text), do: port, else: (_ -> text)
  end

# `server: true` because nobody runs `mix phx.server` here. The services register themselves, see
# Demo.Service; there is no Phoenix endpoint to discover. Uploads and streams may still run when the
# demo is stopped, and are not worth waiting for.
config :ex_service_mesh_router,
  port: port,
  server: true,
  discover: false,
  timeouts: [drain: 500]
