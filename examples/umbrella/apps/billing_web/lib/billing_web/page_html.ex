defmodule BillingWeb.PageHTML do
  use BillingWeb, :html

  def home(assigns) do
    ~H"""
    <.billing_page tenant={@tenant}>
      <h1>Billing</h1>
      <.card title="This request">
        <dl>
          <dt>Host</dt>
          <dd id="host">{@conn.host}</dd>
          <dt>Tenant</dt>
          <dd>{@tenant || "none"}</dd>
          <dt>Your address</dt>
          <dd id="remote-ip">{:inet.ntoa(@conn.remote_ip)}</dd>
          <dt>Server</dt>
          <dd>Cowboy</dd>
        </dl>
      </.card>
      <.services endpoint={BillingWeb.Endpoint} tenant={@tenant} />
    </.billing_page>
    """
  end

  def feed(assigns) do
    ~H"""
    <.billing_page tenant={@tenant}>
      <h1>Feed</h1>
      <.card>
        <p class="soft">
          Server-sent events: the time, once a second, and new invoices.
        </p>
        <ul id="feed" class="log"></ul>
      </.card>
    </.billing_page>
    """
  end
end
