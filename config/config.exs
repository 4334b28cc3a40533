import Config

# For work on the gateway itself. Mix does not read the configuration of a dependency, and the package
# does not contain this.
if config_env() in [:dev, :test], do: import_config("#{config_env()}.exs")
