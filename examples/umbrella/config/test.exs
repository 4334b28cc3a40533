import Config

# In tests, neither the endpoints nor the gateway listen.
config :auth_web, AuthWeb.Endpoint,
  server: false,
  secret_key_base: "auth-test-auth-test-auth-test-auth-test-auth-test-auth-test-auth-te"

config :billing_web, BillingWeb.Endpoint,
  server: false,
  secret_key_base: "billing-test-billing-test-billing-test-billing-test-billing-test-bi"

config :api, Api.Endpoint,
  server: false,
  secret_key_base: "api-test-api-test-api-test-api-test-api-test-api-test-api-test-api-"

config :logger, level: :warning
config :phoenix, :plug_init_mode, :runtime
