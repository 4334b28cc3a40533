import Config

# ExUnit shows the log of a failed test. Tests start their own gateways.
config :ex_unit, capture_log: true
