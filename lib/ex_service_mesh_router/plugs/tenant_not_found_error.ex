defmodule ExServiceMeshRouter.TenantNotFoundError do
  @moduledoc """
  Raised for a host that names no tenant, where `on_missing: :not_found` asks for one.

  It carries `plug_status: 404`, so that Phoenix answers with the application's own page for 404,
  and neither Bandit nor Cowboy logs it as a failure.
  """

  defexception [:host, plug_status: 404]

  @impl true
  def message(%{host: host}), do: "no tenant in the host #{inspect(host)}"
end
