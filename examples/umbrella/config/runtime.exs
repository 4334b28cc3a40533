import Config

# Read at every start, in a release too.
#
#   PHX_SERVER=true     serve: the gateway and all endpoints
#   PORT                the one port that is open to the outside, the gateway's (4000)
#   PUBLIC_URL          what the users' browsers see above the services, such as
#                       https://example.com for https://auth.example.com (http://localhost:PORT)
#   SECRET_KEY_BASE     from `mix phx.gen.secret`
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
      raise "environment variable SECRET_KEY_BASE is missing; `mix phx.gen.secret` makes one"

  port = String.to_integer(System.get_env("PORT") || "4000")
  public = URI.parse(System.get_env("PUBLIC_URL") || "http://localhost:#{port}")

  # `serve? || nil`: without PHX_SERVER it follows `mix phx.server`, as the endpoints do.
  config :ex_service_mesh_router,
    server: serve? || nil,
    ip: :any,
    port: port,
    trusted_proxies: String.split(System.get_env("TRUSTED_PROXIES") || "", ",", trim: true)

  # No `http:`: the endpoints listen on Unix sockets of the gateway's, which is the only way in.
  for {app, endpoint, name} <- [
        {:auth_web, AuthWeb.Endpoint, "auth"},
        {:billing_web, BillingWeb.Endpoint, "billing"},
        {:api, Api.Endpoint, "api"}
      ] do
    host = "#{name}.#{public.host}"

    config app, endpoint,
      url: [scheme: public.scheme, host: host, port: public.port],
      # Pages of the service itself, and those of its tenants.
      check_origin: ["//#{host}", "//*.#{host}"],
      secret_key_base: secret_key_base
  end
end
