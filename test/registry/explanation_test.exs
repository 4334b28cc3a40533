defmodule ExServiceMeshRouter.Registry.ExplanationTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExServiceMeshRouter.EndpointStandIn

  alias ExServiceMeshRouter.Explanation
  alias ExServiceMeshRouter.Registry.{Replicas, Service, Table}

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

    assert {inspect(endpoint),
            "a#{number}.localhost takes precedence for a#{number}.localhost: its configuration has the host"} in it.others
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

  describe "with other nodes" do
    defp services(services, peers) do
      merged = services |> Map.new(&{&1.key, &1}) |> Replicas.merge(peers)
      {Map.values(merged), Table.build(merged, %{}), nil}
    end

    defp peer(node, state, services) do
      services = for {name, host} <- services, do: %{name: name, hosts: [host], since: nil}
      %{id: node, node: node, state: state, services: services}
    end

    test "says which of them requests avoid, and why" do
      local = Service.endpoint(A, :a, ["a.local"], [%{kind: :unix, path: "/a"}])

      peers =
        for {node, state} <- [
              b: :serving,
              c: :draining,
              d: :last_resort,
              e: :serving,
              f: :serving
            ],
            do: peer("#{node}@h", state, [{"A", "a.local"}])

      links = %{
        "b@h" => %{state: :up, address: "10.0.0.1:4600", error: nil},
        "e@h" => %{state: :lost, address: "10.0.0.2:4600", error: "it did not answer"},
        "f@h" => %{state: :unreachable, address: "10.0.0.3:4600", error: "timed out"}
      }

      it = Explanation.new("a.local", {:exact, "a.local", "A"}, services([local], peers), links)

      assert %{node: "f@h", state: :unreachable, address: "10.0.0.3:4600", error: "timed out"} in it.service.peers

      assert inspect(it) == """
             #ExServiceMeshRouter.Explanation<
               a.local -> A at unix:/a, b@h, c@h, d@h, e@h, f@h
               rule: exact, a.local is a host of A
               c@h is draining: it is stopping and gets no requests
               d@h is last resort: Erlang distribution is not connected to it; it gets requests if no other node takes them
               e@h is suspect: it does not answer (it did not answer); it gets requests if no other node takes them
               f@h is unreachable: cannot connect to 10.0.0.3:4600 (timed out)
             >\
             """
    end

    test "says which node has a host that several claim, and names only some of many" do
      peers = [
        peer("b@h", :serving, [{"Z", "x.local"}])
        | for(n <- 100..150, do: peer("c#{n}@h", :draining, [{"A", "x.local"}]))
      ]

      it = Explanation.new("x.local", {:exact, "x.local", "Z"}, services([], peers))

      assert it.others == [
               {"A on c100@h, c101@h, c102@h and 48 more",
                "Z on b@h takes precedence for x.local: b@h has the smaller name of a node"}
             ]

      peers = tl(peers)
      it = Explanation.new("x.local", {:exact, "x.local", "A"}, services([], peers))
      assert %{status: 503} = it
      assert [_, _ | lines] = Explanation.lines(it)
      assert length(lines) == 21
      assert List.last(lines) == "31 more nodes are avoided"
    end

    test "an endpoint of this node that does not listen loses its host" do
      local = Service.endpoint(A, :a, ["x.local"], [])
      peers = [peer("b@h", :serving, [{"Z", "x.local"}])]
      it = Explanation.new("x.local", {:exact, "x.local", "Z"}, services([local], peers))
      assert [{"A", "Z on b@h takes precedence for x.local: it listens"}] = it.others
    end
  end
end
