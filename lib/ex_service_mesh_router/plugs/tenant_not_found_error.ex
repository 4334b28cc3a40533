defmodule ExServiceMeshRouter.TenantNotFoundError do
  @moduledoc """
  Raised for a host without a tenant if `on_missing: :not_found` is set.

  It has `plug_status: 404`: Phoenix renders the application's 404 page, and Bandit and Cowboy do not
  log it as an error.
  """

  defexception [:host, plug_status: 404]

  @impl true
  def message(%{host: host}), do: "no tenant in the host #{inspect(host)}"
end
