defmodule AuthWeb.UserSocket do
  use Phoenix.Socket

  channel "room:*", AuthWeb.RoomChannel

  @impl true
  def connect(_params, socket, %{uri: uri}) do
    with {:ok, tenant} <- Shared.Tenancy.from_uri(uri, socket.endpoint),
         do: {:ok, assign(socket, :tenant, tenant)}
  end

  @impl true
  def id(_socket), do: nil
end
