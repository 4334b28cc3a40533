defmodule Shared.Tenancy do
  @moduledoc """
  Checks that the tenant of a page, LiveView or socket exists.

  The gateway routes `tenant1.auth.localhost` to the service of `auth.localhost` and passes the host on.
  Its package finds the tenant in the host (`ExServiceMeshRouter.TenantPlug`,
  `ExServiceMeshRouter.TenantHook`, `Router.Shared.TenantResolver`). Without a tenant, `@tenant` is `nil`
  and the page is that of the service itself.
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

  @doc "For sockets: `{:ok, tenant}`, `{:ok, nil}` without a tenant, or `:error` for an unknown tenant."
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
