import Config

# The log of a test is shown when the test fails. Tests start the gateways that they need.
config :ex_unit, capture_log: true
