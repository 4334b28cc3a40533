defmodule ExServiceMeshRouter.TenantPlug do
  @moduledoc """
  A plug that assigns the tenant of the request's host.

      # lib/auth_web/router.ex, in a pipeline (or anywhere in the endpoint)
      plug ExServiceMeshRouter.TenantPlug, base: :endpoint

  Afterwards, `conn.assigns.tenant` is the tenant (`"tenant1"` for `tenant1.auth.local`), or `nil` if
  the host has none. `Router.Shared.TenantResolver` defines what a tenant is.

  The host is `conn.host`: the gateway passes the `Host` field on unchanged. The client chooses it, so
  check that the user may access the tenant.

  ## Options

    * `:key` (atom, default `:tenant`) - the name of the assign.

    * `:base` (default none: the host must have exactly three labels) - the host of the service, whose
      subdomains are the tenants:
        * a host name or a list of host names, such as `"auth.example.com"`;
        * `:endpoint` - the `url: [host: ...]` of the Phoenix endpoint that received the request,
          which the gateway also uses for routing;
        * `{module, function, arguments}` - called for each request, returns a host name or a list.
          Use it for values that are known only at run time: Phoenix initialises plugs at compile
          time in production.

    * `:on_missing` (default `:continue`) - what to do if the host has no tenant. The assign is set to
      `nil` first.
        * `:continue` - go on;
        * `:not_found` - raise `ExServiceMeshRouter.TenantNotFoundError`, for which Phoenix renders the
          application's 404 page;
        * `{module, function}` or a function of one argument - called with the connection, returns
          the connection. To stop, it sends a response and halts:

              def to_front_page(conn),
                do: conn |> Phoenix.Controller.redirect(to: "/") |> Plug.Conn.halt()

  Wrong options raise one `ArgumentError` with all mistakes when the plug is initialised.
  """

  # No `@behaviour Plug` and no Plug.Conn struct: this application compiles without Plug.

  alias ExServiceMeshRouter.TenantNotFoundError
  alias ExServiceMeshRouter.Plugs.TenantOptions

  @doc "Validates the options."
  @spec init(keyword()) :: struct()
  def init(options), do: TenantOptions.new!(options, __MODULE__)

  @doc "Assigns the tenant of `conn.host`."
  @spec call(conn, struct()) :: conn when conn: struct()
  def call(%{host: host, assigns: assigns} = conn, options) do
    tenant = TenantOptions.tenant(options, host, conn.private[:phoenix_endpoint])
    conn = %{conn | assigns: Map.put(assigns, options.key, tenant)}

    if tenant, do: conn, else: missing(options.on_missing, conn)
  end

  defp missing(:continue, conn), do: conn
  defp missing(:not_found, conn), do: raise(TenantNotFoundError, host: conn.host)
  defp missing({module, fun}, conn), do: apply(module, fun, [conn])
  defp missing(fun, conn), do: fun.(conn)
end
