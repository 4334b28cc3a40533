defmodule ExServiceMeshRouter.TenantPlug do
  @moduledoc """
  A plug that puts the tenant of the request's host into the assigns.

      # lib/auth_web/router.ex, in a pipeline (or anywhere in the endpoint)
      plug ExServiceMeshRouter.TenantPlug, base: :endpoint

  After it, `conn.assigns.tenant` is the tenant (`"tenant1"` for `tenant1.auth.local`), or `nil`
  where the host names none. `Router.Shared.TenantResolver` says what counts as a tenant.

  The host is `conn.host`: the gateway passes the `Host` field on as the client sent it. It remains
  the client's own claim, so check that the user may see the tenant.

  ## Options

    * `:key` (atom, default `:tenant`) - the name of the assign.

    * `:base` (default none: a host of exactly three labels) - the host of the service, below which
      the tenants lie:
        * a host name or a list of them, such as `"auth.example.com"`;
        * `:endpoint` - the `url: [host: ...]` of the Phoenix endpoint that received the request,
          the same value by which the gateway routes;
        * `{module, function, arguments}` - called for each request, returns one of the first kind.
          Phoenix initialises plugs at compile time in production, so this is the way for values
          known only when the system starts.

    * `:on_missing` (default `:continue`) - what to do with a host that names no tenant. In every
      case the assign is set to `nil` first.
        * `:continue` - go on;
        * `:not_found` - raise `ExServiceMeshRouter.TenantNotFoundError`, which Phoenix renders as
          the application's page for 404;
        * `{module, function}` or a function of one argument - called with the connection, returns
          the connection. To stop there, it sends a response and halts:

              def to_front_page(conn),
                do: conn |> Phoenix.Controller.redirect(to: "/") |> Plug.Conn.halt()

  Wrong options raise `ArgumentError` when the plug is initialised, all of them at once.
  """

  # No `@behaviour Plug` and no Plug.Conn struct: this application compiles, and is tested, where
  # there is no Plug. What is called here is public in every version of it.

  alias ExServiceMeshRouter.TenantNotFoundError
  alias ExServiceMeshRouter.Plugs.TenantOptions

  @doc "Checks the options."
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
