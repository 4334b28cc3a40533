import Config

# A demo says its own lines; of the log only what went wrong is worth reading between them.
config :logger, level: :warning
