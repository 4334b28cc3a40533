defmodule BillingWeb.PagesTest do
  use ExUnit.Case, async: true

  import Phoenix.ConnTest
  import Phoenix.LiveViewTest

  @endpoint BillingWeb.Endpoint

  test "the host names the tenant" do
    assert at("tenant2.billing.localhost") |> get("/") |> html_response(200) =~ "tenant2"
  end

  test "invoices of one tenant are not those of another" do
    {:ok, one, _html} = at("tenant1.billing.localhost") |> live("/invoices")
    {:ok, two, _html} = at("tenant2.billing.localhost") |> live("/invoices")

    one |> form("#new", customer: "Ada", amount: 12) |> render_submit()

    assert render(one) =~ "Ada"
    refute render(two) =~ "Ada"
  end

  test "an upload is counted and hashed" do
    {:ok, view, _html} = at("billing.localhost") |> live("/upload")

    view
    |> file_input("#upload", :file, [%{name: "a.txt", content: "hello", type: "text/plain"}])
    |> render_upload("a.txt")

    html = view |> form("#upload") |> render_submit()
    assert html =~ "5 bytes, SHA-256 2cf24dba"
  end

  defp at(host), do: %{build_conn() | host: host}
end
