defmodule ExServiceMeshRouter.Plugs.TenantHookTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.{TenantHook, TenantNotFoundError}

  defmodule Endpoint do
    def host, do: "auth.example.com"
  end

  # The fields of a Phoenix.LiveView.Socket that matter here; see test/support for the functions.
  defp socket(host_uri, connect_info \\ %{}) do
    %{
      endpoint: Endpoint,
      host_uri: host_uri,
      assigns: %{__changed__: %{}},
      private: %{connect_info: connect_info}
    }
  end

  defp mount(socket, options), do: TenantHook.on_mount(options, %{}, %{}, socket)

  def stop(socket), do: {:halt, socket}

  test "assigns the tenant of the page's host" do
    assert {:cont, socket} = mount(socket(URI.parse("http://t.auth.local:4000/")), :default)
    assert socket.assigns.tenant == "t"
  end

  test "prefers the connection's host to the host that a script can choose" do
    info = %{uri: URI.parse("http://mine.auth.local:4000/live/websocket")}
    assert {:cont, socket} = mount(socket(URI.parse("http://theirs.auth.local/"), info), :default)
    assert socket.assigns.tenant == "mine"
  end

  test "takes the options of the plug" do
    socket = socket(URI.parse("https://t.auth.example.com/"))

    assert {:cont, %{assigns: %{account: "t"}}} = mount(socket, base: :endpoint, key: :account)
    assert {:cont, %{assigns: %{tenant: "t"}}} = mount(socket, base: ["auth.example.com"])
    assert {:cont, %{assigns: %{tenant: nil}}} = mount(socket, base: "auth.local")
  end

  test "continues without a tenant by default" do
    for uri <- [URI.parse("http://auth.local/"), :not_mounted_at_router] do
      assert {:cont, %{assigns: %{tenant: nil}}} = mount(socket(uri), :default)
    end
  end

  test "raises a 404 error with on_missing: :not_found" do
    error =
      assert_raise TenantNotFoundError, fn ->
        mount(socket(URI.parse("http://auth.local/")), on_missing: :not_found)
      end

    assert error.plug_status == 404
  end

  test "calls the function of on_missing" do
    socket = socket(URI.parse("http://auth.local/"))

    for on_missing <- [&__MODULE__.stop/1, {__MODULE__, :stop}] do
      assert {:halt, %{assigns: %{tenant: nil}}} = mount(socket, on_missing: on_missing)
    end
  end

  test "names unknown options" do
    assert_raise ArgumentError, ~r/TenantHook.*unknown option :bases/s, fn ->
      mount(socket(URI.parse("http://auth.local/")), bases: "auth.local")
    end
  end
end
