import Config

# Hosts, ports and secrets come from the environment, see runtime.exs.
config :logger, level: :info
