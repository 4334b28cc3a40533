defmodule BillingWeb.Frame do
  @moduledoc false

  use Phoenix.Component

  attr :tenant, :string, default: nil
  slot :inner_block, required: true

  def billing_page(assigns) do
    ~H"""
    <Shared.Components.page
      service="Billing"
      tenant={@tenant}
      nav={[{"/invoices", "Invoices"}, {"/upload", "Upload"}, {"/feed", "Feed"}]}
    >
      {render_slot(@inner_block)}
    </Shared.Components.page>
    """
  end
end
