import Config

# No `http:` and thus no ports: the gateway gives each endpoint a private listener.
config :auth_web, AuthWeb.Endpoint,
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
  code_reloader: true,
  debug_errors: true,
  secret_key_base: "api-dev-api-dev-api-dev-api-dev-api-dev-api-dev-api-dev-api-dev-api"

config :logger, :default_formatter, format: "[$level] $message\n"

config :phoenix, :stacktrace_depth, 20
config :phoenix, :plug_init_mode, :runtime

config :phoenix_live_view, debug_heex_annotations: true
