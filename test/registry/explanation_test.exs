defmodule ExServiceMeshRouter.Registry.ExplanationTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExServiceMeshRouter.EndpointStandIn

  alias ExServiceMeshRouter.Explanation

  @auth "http://127.0.0.1:9001"

  defp gateway(options \\ []) do
    services = %{
      "auth.local" => @auth,
      "local" => "http://127.0.0.1:9002",
      "billing.local" => "unix:/run/billing.sock"
    }

    start_gateway([services: services] ++ options)
  end

  defp explain(gateway, host), do: ExServiceMeshRouter.explain(gateway, host)

  test "explains an exact match" do
    assert %Explanation{rule: :exact, matched: "auth.local", status: nil} =
             it = explain(gateway(), "Auth.local.:4000")

    assert it.asked == "Auth.local.:4000"
    assert it.host == "auth.local"
    assert %{name: "auth.local", upstreams: [@auth], state: :listening} = it.service

    assert inspect(it) == """
           #ExServiceMeshRouter.Explanation<
             auth.local -> auth.local at #{@auth}
             rule: exact, auth.local is a host of auth.local
             not local: local is above auth.local, but auth.local is longer
             not billing.local: billing.local is another name
           >\
           """
  end

  test "explains the longest suffix, and a name that only ends like it" do
    gateway = gateway()
    it = explain(gateway, "tenant1.auth.local:4000")
    assert %{rule: :suffix, matched: "auth.local", host: "tenant1.auth.local"} = it
    assert inspect(it) =~ "rule: suffix, auth.local is the longest host above tenant1.auth.local"

    it = explain(gateway, "xauth.local")
    assert %{rule: :suffix, matched: "local"} = it

    assert {"auth.local",
            "xauth.local ends in auth.local, but is not below it: there is no dot before it"} in it.others
  end

  test "explains the default, and a default without a service" do
    it = explain(gateway(default: "auth.local"), "nobody.example")
    assert %{rule: :default, matched: "auth.local", status: nil} = it

    assert inspect(it) =~
             "rule: default, no service has nobody.example, and auth.local is for unknown hosts"

    it = explain(gateway(default: "gone.example"), "nobody.example")
    assert %{rule: :none, status: 404, service: nil} = it
    assert {"default", "no service has gone.example"} in it.others
  end

  test "explains an unknown host with the nearest known one, and an invalid host" do
    gateway = start_gateway(services: %{"auth.example" => @auth})
    it = explain(gateway, "auht.example")
    assert %{rule: :none, status: 404, nearest: "auth.example"} = it
    assert inspect(it) =~ "auht.example -> 404, unknown service"
    assert inspect(it) =~ "did you mean auth.example?"
    assert %{nearest: nil} = explain(gateway, "xyz")

    it = explain(gateway, "no host")
    assert %{rule: :none, host: nil, status: 400} = it
    assert inspect(it) =~ ~s|"no host" -> 400, not a host|
  end

  test "explains a silent endpoint, a lost host and a shared host" do
    number = System.unique_integer([:positive])

    [one, two] =
      for letter <- ["a", "b"],
          do: {:"#{letter}#{number}_web", :"Elixir.#{String.upcase(letter)}#{number}Web.Endpoint"}

    for {application, endpoint} <- [one, two],
        do: define(application, endpoint, url: [host: "localhost"], server: false)

    {application, endpoint} = one
    options = [discover: [only: [application, elem(two, 0)]], dev_domain: "localhost"]
    gateway = start_gateway(options)
    eventually(2, fn -> length(ExServiceMeshRouter.services(gateway)) end)

    it = explain(gateway, "t1.a#{number}.localhost")

    assert %{rule: :suffix, status: 503, service: %{endpoint: ^endpoint, state: :not_listening}} =
             it

    assert inspect(it) =~ "#{inspect(endpoint)}, which does not listen: 503"

    it = explain(gateway, "localhost")
    assert it.status == 404

    names = "#{inspect(endpoint)} and #{inspect(elem(two, 1))}"

    assert {inspect(endpoint), "localhost is the host of #{names}, so it goes to none of them"} in it.others

    :ok = ExServiceMeshRouter.put_service(gateway, "a#{number}.localhost", @auth)
    it = explain(gateway, "a#{number}.localhost")
    assert it.service.source == :runtime

    assert {inspect(endpoint), "a#{number}.localhost takes precedence for a#{number}.localhost"} in it.others
  end

  test "lists at most twenty other services, the nearest first" do
    services =
      for n <- 1..50, into: %{"z.local" => @auth, "local" => @auth}, do: {"s#{n}.example", @auth}

    it = explain(start_gateway(services: services), "z.local")
    assert length(it.others) == 20
    assert [{"local", _} | _] = it.others
  end

  test "returns nil without a gateway" do
    assert ExServiceMeshRouter.explain(NoGateway, "auth.local") == nil
  end
end
