defmodule ExServiceMeshRouter.DiscoverableEndpoint do
  @moduledoc """
  The functions of a module that the gateway can discover. Every `Phoenix.Endpoint` has them, and other
  servers can implement them.

  Discovery ignores `@behaviour`. It looks for these functions and for:

    * settings of a loaded application: `config :app, Module, [...]` or `config :app, endpoint: Module`.
      Not required if the telemetry event below names the module.
    * a process that is registered under the module's name. If it is a supervisor, the gateway can give
      it a private listener and detects crashes of its own listener.
    * `url: [host: "..."]` in its settings, for a host besides its development name.
    * the telemetry event `[:phoenix, :endpoint, :init]` with `:module` and `:otp_app` in its metadata at
      its start. Without it, discovery finds the endpoint at its next scan.

  A private listener also requires:

    * `adapter: Adapter` in its settings (default `Phoenix.Endpoint.Cowboy2Adapter`).
      `Adapter.child_specs(Module, config)` must return one child with the id `{Module, :http}`, or a
      longer tuple that ends in `Module.HTTP` (Cowboy). A child that is neither Bandit's nor Cowboy's gets
      a loopback port instead of a Unix socket.

  `test/support/endpoint_stand_in.ex` in the repository is a complete example without Phoenix.
  """

  @doc "Returns a setting of the endpoint (`c:Phoenix.Endpoint.config/2`), `nil` if it is missing."
  @callback config(key :: atom) :: term

  @doc "Returns a setting or a default, which tells a missing key from `nil`. Without it, `c:config/1` is called."
  @callback config(key :: atom, default :: term) :: term

  @doc """
  Returns where the running server listens (`c:Phoenix.Endpoint.server_info/1`, Phoenix 1.7.11). Without
  it, discovery uses the settings `http:`, `https:` and `url:`, if `server:` or `config :phoenix,
  :serve_endpoints` is true.
  """
  @callback server_info(scheme :: :http | :https) ::
              {:ok, {:inet.ip_address(), :inet.port_number()} | {:local, binary} | term}
              | :error
              | {:error, term}

  @doc "Marks an endpoint: this function or `c:struct_url/0` must exist. Discovery never calls it."
  @callback url() :: String.t()

  @doc "See `c:url/0`."
  @callback struct_url() :: URI.t()

  @doc "Receives changed settings (`c:Phoenix.Endpoint.config_change/2`), so that links change without a restart."
  @callback config_change(changed :: [{module, keyword}], removed :: [module]) :: term

  @optional_callbacks config: 2, server_info: 1, url: 0, struct_url: 0, config_change: 2
end
