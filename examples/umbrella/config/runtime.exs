import Config

# Read at every start, also in a release. Environment variables and their defaults:
#
#   PHX_SERVER=true     start the gateway and all endpoints (not set)
#   PORT                the gateway's port, the only public one (4000)
#   PUBLIC_URL          the public URL without the service, such as https://example.com for
#                       https://auth.example.com (http://localhost:PORT)
#   SECRET_KEY_BASE     from `mix phx.gen.secret` (required in production)
#   TRUSTED_PROXIES     addresses of the proxies in front, separated by commas (none)

serve? = System.get_env("PHX_SERVER") in ~w(true 1)

if serve? do
  config :auth_web, AuthWeb.Endpoint, server: true
  config :billing_web, BillingWeb.Endpoint, server: true
  config :api, Api.Endpoint, server: true
end

if config_env() == :prod do
  secret_key_base =
    System.get_env("SECRET_KEY_BASE") ||
      raise "environment variable SECRET_KEY_BASE is missing; generate one with `mix phx.gen.secret`"

  port = String.to_integer(System.get_env("PORT") || "4000")
  public = URI.parse(System.get_env("PUBLIC_URL") || "http://localhost:#{port}")

  # `serve? || nil`: without PHX_SERVER, `mix phx.server` decides, as for the endpoints.
  config :ex_service_mesh_router,
    server: serve? || nil,
    ip: :any,
    port: port,
    trusted_proxies: String.split(System.get_env("TRUSTED_PROXIES") || "", ",", trim: true)

  # No `http:`: the endpoints listen on private Unix sockets, which only the gateway can reach.
  for {app, endpoint, name} <- [
        {:auth_web, AuthWeb.Endpoint, "auth"},
        {:billing_web, BillingWeb.Endpoint, "billing"},
        {:api, Api.Endpoint, "api"}
      ] do
    host = "#{name}.#{public.host}"

    config app, endpoint,
      url: [scheme: public.scheme, host: host, port: public.port],
      # Allow the origins of the service and of its tenants.
      check_origin: ["//#{host}", "//*.#{host}"],
      secret_key_base: secret_key_base
  end
end
