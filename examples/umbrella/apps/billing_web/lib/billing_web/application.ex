defmodule BillingWeb.Application do
  @moduledoc false

  use Application

  @impl true
  def start(_type, _args) do
    children = [BillingWeb.Invoices, BillingWeb.Endpoint]
    Supervisor.start_link(children, strategy: :one_for_one, name: BillingWeb.Supervisor)
  end

  @impl true
  def config_change(changed, _new, removed) do
    BillingWeb.Endpoint.config_change(changed, removed)
    :ok
  end
end
