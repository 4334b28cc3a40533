defmodule ExServiceMeshRouter.Endpoint.DevNamesTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExServiceMeshRouter.EndpointStandIn
  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.Endpoint.DevNames

  setup do: %{one: unique("one"), two: unique("two")}

  defp start(web, settings \\ []) do
    settings = Keyword.merge([url: [host: "localhost"], says: web.name, server: true], settings)
    define(web.application, web.endpoint, settings)
    start_supervised!(web.endpoint)
  end

  defp discovering(webs, options \\ []) do
    only = for web <- webs, do: web.application
    start_gateway(Keyword.merge([discover: [only: only], dev_domain: "localhost"], options))
  end

  defp hosts(gateway),
    do: for(service <- ExServiceMeshRouter.services(gateway), do: {service.name, service.hosts})

  test "label/2 is the application's name without _web" do
    assert DevNames.label(:auth_web, AuthWeb.Endpoint) == "auth"
    assert DevNames.label(:my_shop_web, MyShopWeb.Endpoint) == "my-shop"
    assert DevNames.label(:api, Api.Endpoint) == "api"
    assert DevNames.label(:auth_web, AuthWeb.Admin.Endpoint) == "auth-admin"
    assert DevNames.label(:auth_web, AuthWeb.AdminEndpoint) == "auth-admin"
    assert DevNames.label(:auth_web, Elsewhere.Endpoint) == "auth"
    assert DevNames.hosts(:auth_web, AuthWeb.Endpoint, "lvh.me") == ["auth.lvh.me"]
    assert DevNames.hosts(:auth_web, AuthWeb.Endpoint, nil) == []
  end

  test "generated applications get their names with tenants, and none gets localhost",
       %{one: one, two: two} do
    log =
      capture_log(fn ->
        start(one)
        start(two)
        gateway = discovering([one, two])
        eventually({200, one.name}, fn -> get(gateway, "#{one.name}.localhost") end)
        eventually({200, two.name}, fn -> get(gateway, "#{two.name}.localhost:4000") end)
        assert get(gateway, "t1.#{one.name}.localhost") == {200, one.name}
        assert {404, "unknown service: localhost" <> _} = get(gateway, "localhost")
        assert {404, _} = get(gateway, "other.localhost")

        assert hosts(gateway) == [
                 {inspect(one.endpoint), ["#{one.name}.localhost"]},
                 {inspect(two.endpoint), ["#{two.name}.localhost"]}
               ]
      end)

    refute log =~ "route localhost is claimed"
    line = "route localhost is the host of #{inspect(one.endpoint)} and #{inspect(two.endpoint)}"

    assert log =~
             line <>
               ", and goes to none of them; they answer to " <>
               "#{one.name}.localhost, #{two.name}.localhost"

    assert length(String.split(log, line)) == 2
  end

  test "the only endpoint with localhost keeps it until another one is found",
       %{one: one, two: two} do
    start(one)
    gateway = discovering([one, two])
    eventually({200, one.name}, fn -> get(gateway, "localhost") end)
    assert get(gateway, "#{one.name}.localhost") == {200, one.name}

    start(two)
    eventually({200, two.name}, fn -> get(gateway, "#{two.name}.localhost") end)
    assert {404, _} = get(gateway, "localhost")
    assert get(gateway, "#{one.name}.localhost") == {200, one.name}
  end

  test "localhost does not depend on which endpoints are running", %{one: one, two: two} do
    start(one)
    start(two, server: false)
    gateway = discovering([one, two])
    eventually({200, one.name}, fn -> get(gateway, "#{one.name}.localhost") end)
    assert {404, _} = get(gateway, "localhost")
  end

  test "a configured service can have localhost", %{one: one, two: two} do
    start(one)
    start(two)
    gateway = discovering([one, two], services: %{"localhost" => start_server("mine")})
    eventually({200, one.name}, fn -> get(gateway, "#{one.name}.localhost") end)
    assert get(gateway, "localhost") == {200, "mine"}
  end

  test "a configured host comes before a derived one, without a warning",
       %{one: one, two: two} do
    log =
      capture_log(fn ->
        start(one)
        start(two, url: [host: "#{one.name}.localhost"])
        gateway = discovering([one, two])
        settle(gateway)
        assert get(gateway, "#{one.name}.localhost") == {200, two.name}
        assert get(gateway, "#{two.name}.localhost") == {200, two.name}
        assert get(gateway, "localhost") == {200, one.name}
      end)

    refute log =~ "#{one.name}.localhost is claimed"
  end

  test "two endpoints with the same configured host are a conflict in development",
       %{one: one, two: two} do
    host = "both-#{one.name}.local"

    log =
      capture_log(fn ->
        start(one, url: [host: host])
        start(two, url: [host: host])
        gateway = discovering([one, two])
        settle(gateway)
        assert get(gateway, "#{two.name}.localhost") == {200, two.name}
        assert get(gateway, host) == {200, one.name}
        # What a change of the routes has to say is logged when this is answered.
        assert [_, _] = hosts(gateway)
      end)

    assert log =~
             "#{host} is claimed by both #{inspect(one.endpoint)} and #{inspect(two.endpoint)}"
  end

  test "without a development domain localhost is a host like any other", %{one: one, two: two} do
    log =
      capture_log(fn ->
        start(one)
        start(two)
        gateway = discovering([one, two], dev_domain: nil)
        eventually({200, one.name}, fn -> get(gateway, "localhost") end)
        settle(gateway)
        assert {200, _} = get(gateway, "#{one.name}.localhost")
        assert hosts(gateway) |> Enum.flat_map(&elem(&1, 1)) == ["localhost"]
      end)

    assert log =~ "route localhost is claimed by both"
  end

  test "both loopback addresses answer", %{one: one} do
    start(one)
    gateway = discovering([one], ip: :loopback)
    eventually({200, one.name}, fn -> get(gateway, "#{one.name}.localhost") end)
    request = request("#{one.name}.localhost")

    # The port is the same on both only if it was free on both; each is asked for its own.
    for {ip, port} <- ExServiceMeshRouter.Gateway.addresses(gateway) do
      host = if ip =~ ":", do: "[#{ip}]", else: ip
      assert answer(RawClient.exchange("http://#{host}:#{port}", request)) == {200, one.name}
    end
  end
end
