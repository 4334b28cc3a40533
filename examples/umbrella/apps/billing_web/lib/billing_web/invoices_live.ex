defmodule BillingWeb.InvoicesLive do
  use BillingWeb, :live_view

  alias BillingWeb.Invoices

  @impl true
  def mount(_params, _session, socket) do
    tenant = socket.assigns.tenant
    if connected?(socket), do: Invoices.subscribe(tenant)
    {:ok, assign(socket, page_title: "Invoices", invoices: Invoices.all(tenant))}
  end

  @impl true
  def render(assigns) do
    ~H"""
    <.billing_page tenant={@tenant}>
      <h1>Invoices</h1>
      <.card>
        <form id="new" class="row" phx-submit="add">
          <input type="text" name="customer" aria-label="Customer" placeholder="Customer" required />
          <input
            type="number"
            name="amount"
            aria-label="Amount"
            placeholder="Amount"
            min="1"
            required
          />
          <button>Add</button>
        </form>
      </.card>
      <.card>
        <table>
          <thead>
            <tr>
              <th>Customer</th>
              <th class="number">Amount</th>
            </tr>
          </thead>
          <tbody id="invoices">
            <tr :for={invoice <- @invoices}>
              <td>{invoice.customer}</td>
              <td class="number">{invoice.amount}</td>
            </tr>
          </tbody>
        </table>
        <p :if={@invoices == []} class="soft">None yet.</p>
      </.card>
    </.billing_page>
    """
  end

  @impl true
  def handle_event("add", %{"customer" => customer, "amount" => amount}, socket) do
    Invoices.add(socket.assigns.tenant, customer, String.to_integer(amount))
    {:noreply, socket}
  end

  @impl true
  def handle_info({:invoice, invoice}, socket),
    do: {:noreply, update(socket, :invoices, &[invoice | &1])}
end
