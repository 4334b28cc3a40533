defmodule ApiTest do
  use ExUnit.Case, async: true

  import Phoenix.ConnTest

  @endpoint Api.Endpoint

  test "the host names the tenant" do
    conn = %{build_conn() | host: "tenant1.api.localhost"} |> get("/")
    assert %{"tenant" => "tenant1", "service" => "api"} = json_response(conn, 200)
  end

  test "a body is counted and hashed" do
    conn =
      build_conn()
      |> Plug.Conn.put_req_header("content-type", "application/octet-stream")
      |> put("/files/hello", "hello")

    assert %{"size" => 5, "sha256" => "2cf24dba" <> _} = json_response(conn, 200)
  end
end
