defmodule AuthWeb.GatewayTest do
  use ExUnit.Case

  import ExServiceMeshRouter.Test

  # Everything else is tested without a server. This asks for a host as a browser would.
  test "tenants reach this application through the gateway" do
    gateway = start_gateway!()

    assert %{status: 200, body: body} = request(gateway, "tenant1.auth.localhost")
    assert body =~ ~s(<meta name="tenant" content="tenant1">)

    assert %{status: 404} = request(gateway, "nothing.localhost")
  end
end
