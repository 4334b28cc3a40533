import Config

# The port that browsers connect to.
config :ex_service_mesh_router, port: 4000

config :auth_web, AuthWeb.Endpoint,
  url: [host: "auth.localhost", port: 4000],
  adapter: Bandit.PhoenixAdapter,
  render_errors: [formats: [html: Shared.ErrorHTML, json: Shared.ErrorJSON], layout: false],
  pubsub_server: Shared.PubSub,
  live_view: [signing_salt: "Qm3yX1pT"]

# Each endpoint keeps its own server: this one has Cowboy.
config :billing_web, BillingWeb.Endpoint,
  url: [host: "billing.localhost", port: 4000],
  adapter: Phoenix.Endpoint.Cowboy2Adapter,
  render_errors: [formats: [html: Shared.ErrorHTML, json: Shared.ErrorJSON], layout: false],
  pubsub_server: Shared.PubSub,
  live_view: [signing_salt: "b7Vn2LwK"]

config :api, Api.Endpoint,
  url: [host: "api.localhost", port: 4000],
  adapter: Bandit.PhoenixAdapter,
  render_errors: [formats: [json: Shared.ErrorJSON], layout: false],
  pubsub_server: Shared.PubSub

config :logger, :default_formatter,
  format: "$time $metadata[$level] $message\n",
  metadata: [:request_id]

config :phoenix, :json_library, Jason

import_config "#{config_env()}.exs"
