defmodule AuthWeb.Frame do
  @moduledoc false

  use Phoenix.Component

  attr :tenant, :string, default: nil
  slot :inner_block, required: true

  def auth_page(assigns) do
    ~H"""
    <Shared.Components.page
      service="Auth"
      tenant={@tenant}
      nav={[{"/counter", "Counter"}, {"/chat", "Chat"}]}
    >
      {render_slot(@inner_block)}
    </Shared.Components.page>
    """
  end
end
