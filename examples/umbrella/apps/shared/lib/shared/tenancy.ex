defmodule Shared.Tenancy do
  @moduledoc """
  Who the tenant of a request is, the same for pages, LiveViews and sockets.

  The gateway sends `tenant1.auth.localhost` to the service of `auth.localhost` and passes the host
  on. The gateway's package finds the tenant in it (`ExServiceMeshRouter.TenantPlug`,
  `ExServiceMeshRouter.TenantHook`, `Router.Shared.TenantResolver`); this module checks that there is
  such a tenant. Without one (`@tenant` is `nil`) it is the service's own page.
  """

  alias Router.Shared.TenantResolver
  alias Shared.Tenants

  defmodule UnknownTenantError do
    defexception [:tenant, plug_status: 404]

    @impl true
    def message(error), do: "there is no tenant #{error.tenant}"
  end

  @doc "A function plug, after `ExServiceMeshRouter.TenantPlug`."
  def require_known_tenant(conn, _options) do
    check!(conn.assigns.tenant)
    conn
  end

  @doc "For `live_session`, after `ExServiceMeshRouter.TenantHook`."
  def on_mount(:require_known_tenant, _params, _session, socket) do
    check!(socket.assigns.tenant)
    {:cont, socket}
  end

  @doc "For sockets: `{:ok, tenant}`, `{:ok, nil}` without one, or `:error` for an unknown one."
  def from_uri(%URI{host: host}, endpoint) do
    case TenantResolver.resolve(host, base: endpoint.host()) do
      {:ok, tenant} -> if Tenants.known?(tenant), do: {:ok, tenant}, else: :error
      :error -> {:ok, nil}
    end
  end

  defp check!(nil), do: :ok

  defp check!(tenant) do
    unless Tenants.known?(tenant), do: raise(UnknownTenantError, tenant: tenant)
  end
end
