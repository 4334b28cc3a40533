defmodule AuthWeb.RoomChannel do
  use Phoenix.Channel

  # The client chooses the name of the room; the tenant comes from the host of the connection.
  @impl true
  def join("room:" <> room, _params, socket) do
    if room == (socket.assigns.tenant || "lobby"),
      do: {:ok, socket},
      else: {:error, %{reason: "not your room"}}
  end

  @impl true
  def handle_in("say", %{"text" => text}, socket) do
    broadcast!(socket, "said", %{text: text, from: socket.assigns.tenant || "guest"})
    {:reply, :ok, socket}
  end
end
