defmodule AuthWeb.PagesTest do
  use ExUnit.Case, async: true

  import Phoenix.ConnTest
  import Phoenix.LiveViewTest

  @endpoint AuthWeb.Endpoint

  test "the host names the tenant" do
    assert at("tenant1.auth.localhost") |> get("/") |> html_response(200) =~
             ~s(<meta name="tenant" content="tenant1">)

    assert at("auth.localhost") |> get("/") |> html_response(200) =~ "none"
  end

  test "a tenant that is not known is not found" do
    assert_error_sent 404, fn -> at("nobody.auth.localhost") |> get("/") end
  end

  test "a counter for each tenant" do
    {:ok, one, _html} = at("tenant1.auth.localhost") |> live("/counter")
    {:ok, two, _html} = at("tenant2.auth.localhost") |> live("/counter")

    one |> element("#inc") |> render_click()

    assert one |> element("#count") |> render() =~ "1"
    assert two |> element("#count") |> render() =~ "0"
  end

  defp at(host), do: %{build_conn() | host: host}
end
