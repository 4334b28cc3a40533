import Config

# For development of the gateway itself. Mix ignores the configuration of a dependency, and the package
# does not contain it.
if config_env() in [:dev, :test], do: import_config("#{config_env()}.exs")
