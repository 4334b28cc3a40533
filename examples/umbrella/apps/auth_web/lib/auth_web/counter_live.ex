defmodule AuthWeb.CounterLive do
  use AuthWeb, :live_view

  alias AuthWeb.Counter
  alias ExServiceMeshRouter.RemoteIp

  @impl true
  def mount(_params, _session, socket) do
    tenant = socket.assigns.tenant
    if connected?(socket), do: Counter.subscribe(tenant)

    {:ok,
     assign(socket,
       page_title: "Counter",
       count: Counter.get(tenant),
       connected: connected?(socket),
       remote_ip: remote_ip(socket)
     )}
  end

  @impl true
  def render(assigns) do
    ~H"""
    <.auth_page tenant={@tenant}>
      <h1>Counter</h1>
      <.card>
        <div class="counter">
          <button id="dec" class="plain" phx-click="add" phx-value-by="-1" aria-label="less">
            −
          </button>
          <output id="count">{@count}</output>
          <button id="inc" phx-click="add" phx-value-by="1" aria-label="more">+</button>
        </div>
      </.card>
      <.card>
        <p class="soft">
          All visitors of this tenant see the same number. LiveView is <span id="connected">{if @connected, do: "connected", else: "not connected"}</span>, from <span id="remote-ip">{@remote_ip}</span>.
        </p>
      </.card>
    </.auth_page>
    """
  end

  @impl true
  def handle_event("add", %{"by" => by}, socket) do
    Counter.add(socket.assigns.tenant, String.to_integer(by))
    {:noreply, socket}
  end

  @impl true
  def handle_info({:count, count}, socket), do: {:noreply, assign(socket, count: count)}

  # Sockets do not pass through the endpoint's plugs, so RemoteIp must be called here.
  defp remote_ip(socket) do
    with %{} = peer <- get_connect_info(socket, :peer_data),
         ip when ip != nil <-
           RemoteIp.from_connect_info(%{
             peer_data: peer,
             x_headers: get_connect_info(socket, :x_headers)
           }) do
      to_string(:inet.ntoa(ip))
    else
      nil -> "unknown"
    end
  end
end
