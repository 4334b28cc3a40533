defmodule BillingWeb.Invoices do
  @moduledoc """
  Keeps the invoices of each tenant, which would be a table in a real system.
  """

  use Agent

  alias Phoenix.PubSub

  def start_link(_options), do: Agent.start_link(fn -> %{} end, name: __MODULE__)

  def subscribe(tenant), do: PubSub.subscribe(Shared.PubSub, topic(tenant))

  @doc "Returns the invoices of a tenant, the latest first."
  def all(tenant), do: Agent.get(__MODULE__, &Map.get(&1, tenant, []))

  def add(tenant, customer, amount) do
    invoice = %{customer: customer, amount: amount}
    Agent.update(__MODULE__, &Map.update(&1, tenant, [invoice], fn all -> [invoice | all] end))
    PubSub.broadcast!(Shared.PubSub, topic(tenant), {:invoice, invoice})
  end

  defp topic(tenant), do: "invoices:#{tenant}"
end
