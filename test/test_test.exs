defmodule ExServiceMeshRouter.TestTest do
  use ExUnit.Case, async: true

  import ExServiceMeshRouter.EndpointStandIn, only: [define: 3, unique: 1]
  import ExServiceMeshRouter.Test

  alias ExServiceMeshRouter.Http.{Request, Server}

  defp endpoint(settings) do
    %{name: name, application: application, endpoint: endpoint} = unique("helped")
    # As `mix phx.new` writes it for tests.
    defaults = [url: [host: "localhost"], http: [ip: {127, 0, 0, 1}, port: 4002], server: false]
    define(application, endpoint, Keyword.merge(defaults, settings))
    start_supervised!(endpoint)
    %{application: application, endpoint: endpoint, host: "#{name}.localhost"}
  end

  test "start_gateway!/1 routes endpoints that do not serve, by name and for tenants" do
    %{application: application, endpoint: endpoint, host: host} = endpoint(says: "hello")
    gateway = start_gateway!(discover: [only: [application]])
    assert %{status: 200, body: "hello"} = request(gateway, host)
    assert %{status: 200, body: "hello"} = request(gateway, "tenant1." <> host, "/any?a=1")

    assert %{status: 404, body: "unknown service: nobody.example" <> _} =
             request(gateway, "nobody.example")

    assert [%{endpoint: ^endpoint, state: :listening}] = ExServiceMeshRouter.services(gateway)

    stop_supervised!(gateway)
    assert Supervisor.which_children(endpoint) == []
  end

  test "request/4 sends method, fields and body, and returns the whole response" do
    handler = fn request ->
      {body, request} = Request.reduce_body(request, "", &(&2 <> &1))

      {{201, [{"x-method", request.method}], [body, " ", Request.one(request, "x-a")]}, request}
    end

    {:ok, server} = start_supervised({Server, handler: handler})
    gateway = start_gateway!(discover: false, services: %{"a.local" => Server.url(server)})
    options = [method: :post, headers: [{"X-A", "field"}], body: "body"]

    assert %{status: 201, headers: headers, body: body} =
             request(gateway, "a.local", "/", options)

    assert {"x-method", "POST"} in headers
    assert body == "body field"

    assert url(gateway, "a.local", "/x") ==
             "http://a.local:#{ExServiceMeshRouter.port(gateway)}/x"
  end
end
