defmodule ExServiceMeshRouter.DiscoverableEndpoint do
  @moduledoc """
  What a module offers to be discovered. Every `Phoenix.Endpoint` does; another server can do the same.

  Discovery does not look for `Phoenix.Endpoint` or for this `@behaviour`, only for these functions and for:

    * settings of its application: `config :app, Module, [...]` or `config :app, endpoint: Module`. The application
      must be loaded. Not needed if the telemetry event below names the module.
    * a process that is registered under the module's name. If it is a supervisor, the gateway can give it a private
      listener and notices when its own listener crashes.
    * `url: [host: "..."]` in its settings, for a host besides its development name.
    * the telemetry event `[:phoenix, :endpoint, :init]` with `:module` and `:otp_app` in its metadata when it starts.
      Without it, discovery finds the start at its next scan.

  For a private listener, it also offers:

    * `adapter: Adapter` in its settings (default `Phoenix.Endpoint.Cowboy2Adapter`), where `Adapter.child_specs(Module,
      config)` returns one child with the id `{Module, :http}`, or a longer tuple that ends in `Module.HTTP` (Cowboy).
      A child that is neither Bandit's nor Cowboy's gets a loopback port, not a Unix socket.

  `test/support/endpoint_stand_in.ex` in the repository is a complete example without Phoenix.
  """

  @doc "A setting of the endpoint (`c:Phoenix.Endpoint.config/2`), `nil` where it is missing."
  @callback config(key :: atom) :: term

  @doc "The same with a default, which tells a missing key from `nil`. Without it, `c:config/1` is called."
  @callback config(key :: atom, default :: term) :: term

  @doc """
  Where the running server listens (`c:Phoenix.Endpoint.server_info/1`, Phoenix 1.7.11). Without it, the settings
  `http:`, `https:` and `url:` count, if `server:` or `config :phoenix, :serve_endpoints` is true.
  """
  @callback server_info(scheme :: :http | :https) ::
              {:ok, {:inet.ip_address(), :inet.port_number()} | {:local, binary} | term}
              | :error
              | {:error, term}

  @doc "Marks an endpoint, with `c:struct_url/0`: one of them must exist. Discovery never calls it."
  @callback url() :: String.t()

  @doc "See `c:url/0`."
  @callback struct_url() :: URI.t()

  @doc "Told of changed settings (`c:Phoenix.Endpoint.config_change/2`), so that links change without a restart."
  @callback config_change(changed :: [{module, keyword}], removed :: [module]) :: term

  @optional_callbacks config: 2, server_info: 1, url: 0, struct_url: 0, config_change: 2
end
