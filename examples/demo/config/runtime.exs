import Config

# Passes other values on: the gateway reports what it accepts.
port =
  case System.get_env("PORT", "") do
    "" -> 4000
    text -> with {port, ""} <- Integer.parse(text), do: port, else: (_ -> text)
  end

# `server: true`, because the demo has no `mix phx.server`. Its services register themselves, see
# Demo.Service, so discovery is off. The short drain ends uploads and streams when the demo stops.
config :ex_service_mesh_router,
  port: port,
  server: true,
  discover: false,
  timeouts: [drain: 500]
