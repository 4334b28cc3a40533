defmodule Shared.Tenants do
  @moduledoc """
  The tenants that there are. A table in a real system; the host of a request only says which of
  them is meant.
  """

  @tenants ~w(tenant1 tenant2)

  def all, do: @tenants

  def known?(tenant), do: tenant in @tenants
end
