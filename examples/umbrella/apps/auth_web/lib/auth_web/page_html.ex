defmodule AuthWeb.PageHTML do
  use AuthWeb, :html

  def home(assigns) do
    ~H"""
    <.auth_page tenant={@tenant}>
      <h1>Auth</h1>
      <.card title="This request">
        <dl>
          <dt>Host</dt>
          <dd id="host">{@conn.host}</dd>
          <dt>Tenant</dt>
          <dd>{@tenant || "none"}</dd>
          <dt>Your address</dt>
          <dd id="remote-ip">{:inet.ntoa(@conn.remote_ip)}</dd>
          <dt>Server</dt>
          <dd>Bandit</dd>
        </dl>
      </.card>
      <.services endpoint={AuthWeb.Endpoint} tenant={@tenant} />
    </.auth_page>
    """
  end

  def chat(assigns) do
    ~H"""
    <.auth_page tenant={@tenant}>
      <h1>Chat</h1>
      <.card>
        <p class="soft">
          A channel, one room for each tenant. Open this page twice. State: <span id="chat-state">connecting</span>.
        </p>
        <div id="chat">
          <ul class="log"></ul>
          <form class="row">
            <input
              type="text"
              name="text"
              aria-label="Message"
              placeholder="Message"
              autocomplete="off"
            />
            <button>Send</button>
          </form>
        </div>
      </.card>
    </.auth_page>
    """
  end
end
