defmodule Shared.Tenants do
  @moduledoc """
  Lists the tenants, which would be a table in a real system.
  """

  @tenants ~w(tenant1 tenant2)

  def all, do: @tenants

  def known?(tenant), do: tenant in @tenants
end
