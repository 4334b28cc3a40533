import Config

# The demo prints its own lines, so the log only has warnings and errors.
config :logger, level: :warning
