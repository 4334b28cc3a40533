import Config

# Port 0 lets each endpoint take any free one: the gateway asks the running server where it is.
config :auth_web, AuthWeb.Endpoint,
  http: [ip: {127, 0, 0, 1}, port: 0],
  check_origin: false,
  code_reloader: true,
  debug_errors: true,
  secret_key_base: "auth-dev-auth-dev-auth-dev-auth-dev-auth-dev-auth-dev-auth-dev-auth",
  watchers: [],
  live_reload: [
    patterns: [
      ~r"lib/auth_web/.*(ex|heex)$",
      ~r"lib/shared/.*(ex|heex)$",
      ~r"priv/static/.*(js|css|svg)$"
    ]
  ]

config :billing_web, BillingWeb.Endpoint,
  http: [ip: {127, 0, 0, 1}, port: 0],
  check_origin: false,
  code_reloader: true,
  debug_errors: true,
  secret_key_base: "billing-dev-billing-dev-billing-dev-billing-dev-billing-dev-billing",
  watchers: [],
  live_reload: [
    patterns: [
      ~r"lib/billing_web/.*(ex|heex)$",
      ~r"lib/shared/.*(ex|heex)$",
      ~r"priv/static/.*(js|css|svg)$"
    ]
  ]

config :api, Api.Endpoint,
  http: [ip: {127, 0, 0, 1}, port: 0],
  code_reloader: true,
  debug_errors: true,
  secret_key_base: "api-dev-api-dev-api-dev-api-dev-api-dev-api-dev-api-dev-api-dev-api"

config :logger, :console, format: "[$level] $message\n"

config :phoenix, :stacktrace_depth, 20
config :phoenix, :plug_init_mode, :runtime

config :phoenix_live_view, debug_heex_annotations: true
