defmodule AuthWeb.Endpoint do
  use Phoenix.Endpoint, otp_app: :auth_web

  # No domain: browsers send the cookie only to the same host, so tenants do not share sessions.
  @session_options [
    store: :cookie,
    key: "_auth_web_key",
    signing_salt: "k2Qd8mZr",
    same_site: "Lax"
  ]

  # :uri has the tenant's host, :peer_data and :x_headers the client's address.
  @connect_info [:peer_data, :uri, :x_headers, session: @session_options]

  socket "/live", Phoenix.LiveView.Socket,
    websocket: [connect_info: @connect_info],
    longpoll: [connect_info: @connect_info]

  socket "/socket", AuthWeb.UserSocket,
    websocket: [connect_info: [:uri]],
    longpoll: [connect_info: [:uri]]

  plug Plug.Static, at: "/assets", from: {:shared, "priv/static"}

  # The packages contain built JavaScript.
  plug Plug.Static, at: "/vendor/phoenix", from: {:phoenix, "priv/static"}

  plug Plug.Static,
    at: "/vendor/phoenix_live_view",
    from: {:phoenix_live_view, "priv/static"}

  if code_reloading? do
    socket "/phoenix/live_reload/socket", Phoenix.LiveReloader.Socket
    plug Phoenix.LiveReloader
    plug Phoenix.CodeReloader
  end

  # Before plugs that read the client's address, the scheme or the port.
  plug ExServiceMeshRouter.RemoteIp
  plug Plug.RequestId
  plug Plug.Telemetry, event_prefix: [:phoenix, :endpoint]

  plug Plug.Parsers,
    parsers: [:urlencoded, :multipart, :json],
    pass: ["*/*"],
    json_decoder: Phoenix.json_library()

  plug Plug.MethodOverride
  plug Plug.Head
  plug Plug.Session, @session_options
  plug AuthWeb.Router
end
