defmodule AuthWeb.RoomChannelTest do
  use ExUnit.Case, async: true

  import Phoenix.ChannelTest

  @endpoint AuthWeb.Endpoint

  test "what is said is heard in the room of the tenant" do
    {:ok, _, socket} = connect_at("tenant1.auth.localhost") |> subscribe_and_join("room:tenant1")
    push(socket, "say", %{"text" => "hello"})
    assert_broadcast "said", %{text: "hello", from: "tenant1"}
  end

  test "the rooms of others are closed" do
    socket = connect_at("tenant1.auth.localhost")
    assert {:error, %{reason: "not your room"}} = subscribe_and_join(socket, "room:tenant2")
  end

  test "unknown tenants get no socket" do
    assert :error = connect(AuthWeb.UserSocket, %{}, connect_info: uri("nobody.auth.localhost"))
  end

  defp connect_at(host) do
    {:ok, socket} = connect(AuthWeb.UserSocket, %{}, connect_info: uri(host))
    socket
  end

  defp uri(host), do: %{uri: %URI{scheme: "http", host: host, port: 4000}}
end
