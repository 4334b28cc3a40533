defmodule Shared.TenancyTest do
  use ExUnit.Case, async: true

  alias Shared.Tenancy

  defmodule Endpoint do
    def host, do: "auth.example.com"
  end

  test "the tenant is the label in front of the endpoint's host" do
    assert from("tenant1.auth.example.com") == {:ok, "tenant1"}
    assert from("auth.example.com") == {:ok, nil}
  end

  test "unknown tenants are refused" do
    assert from("nobody.auth.example.com") == :error
  end

  test "the gateway does not listen in tests" do
    assert ExServiceMeshRouter.port() == nil
    assert ExServiceMeshRouter.services() == []
  end

  defp from(host), do: Tenancy.from_uri(%URI{host: host}, Endpoint)
end
