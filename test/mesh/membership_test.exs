defmodule ExServiceMeshRouter.Mesh.MembershipTest do
  # Several nodes with the library as it is. Each test has gateways of its own name, so that they meet
  # only each other.
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExServiceMeshRouter.EndpointStandIn, only: [unique: 1]

  alias ExServiceMeshRouter.{Cluster, Registry}

  if reason = Cluster.unavailable() do
    IO.puts("skipped, tests of several nodes: #{reason}")
    @moduletag skip: reason
  end

  setup_all do
    peers = for name <- ~w(a b c), do: Cluster.start_node(name)
    Cluster.connect(peers)
    %{peers: peers}
  end

  setup %{peers: peers} do
    name = Module.concat(__MODULE__, "Gateway#{System.unique_integer([:positive])}")
    web = unique("mesh")

    on_exit(fn ->
      for peer <- peers, Process.alive?(peer), do: Cluster.stop_gateway(peer, name)
    end)

    %{gateway: name, web: Map.put(web, :host, web.name <> ".example")}
  end

  defp services(peer, gateway), do: Cluster.call(peer, ExServiceMeshRouter, :services, [gateway])

  # Where a node sends the requests for the host: "here", and the first letter of other nodes.
  defp replicas(peer, gateway, host) do
    case Enum.find(services(peer, gateway), &(host in &1.hosts)) do
      nil ->
        nil

      service ->
        states = Map.new(service.peers, &{&1.node, &1.state})

        for upstream <- service.upstreams do
          case states do
            %{^upstream => :serving} -> String.first(upstream)
            %{^upstream => state} -> {String.first(upstream), state}
            _ -> "here"
          end
        end
    end
  end

  # What a client of the node's gateway gets.
  defp get_at(peer, gateway, host) do
    port = Cluster.call(peer, ExServiceMeshRouter, :port, [gateway])
    "http://127.0.0.1:#{port}" |> RawClient.exchange(request(host)) |> answer()
  end

  defp start_gateways(context, peers, options \\ []) do
    options = Keyword.merge([discover: [only: [context.web.application]]], options)
    for peer <- peers, do: Cluster.start_gateway(peer, context.gateway, options)
  end

  defp start_endpoint(peer, web), do: Cluster.start_endpoint(peer, web, url: [host: web.host])

  defp part(peer, gateway, part),
    do: Cluster.call(peer, Process, :whereis, [Module.concat(gateway, part)])

  defp kill(peer, gateway, part) do
    pid = part(peer, gateway, part)
    Cluster.call(peer, Process, :exit, [pid, :kill])

    # The next one.
    eventually(true, fn -> part(peer, gateway, part) not in [nil, pid] end)
  end

  # Whether a hello of this kind of term is answered by an unchanged, living gateway.
  defp say(from, to, gateway, term) do
    member = part(to, gateway, "Member")
    Cluster.call(from, :erlang, :send, [member, {:exmesh_hello, term}])
    # It has been read.
    Cluster.call(to, :sys, :get_state, [member])
    assert part(to, gateway, "Member") == member
  end

  # What the gateway of the node would say.
  defp own_hello(peer, gateway) do
    Cluster.call(peer, Cluster, :hello, [gateway])
  end

  test "an endpoint of one node is known to all others, and follows its start and stop",
       %{peers: [a, b, c] = peers, gateway: gateway, web: web} = context do
    start_gateways(context, peers)
    started = System.monotonic_time(:millisecond)
    start_endpoint(b, web)

    for peer <- [a, c],
        do: eventually(["b"], 5_000, fn -> replicas(peer, gateway, web.host) end)

    took = System.monotonic_time(:millisecond) - started
    assert took < 3_000

    name = inspect(web.endpoint)
    assert [%{source: :peer, name: ^name, state: :listening}] = services(a, gateway)

    start_endpoint(a, web)
    eventually(["here", "b"], fn -> replicas(a, gateway, web.host) end)
    eventually(["here", "a"], fn -> replicas(b, gateway, web.host) end)
    eventually(["a", "b"], fn -> replicas(c, gateway, web.host) end)

    Cluster.stop_endpoint(b, web)
    eventually(["a"], fn -> replicas(c, gateway, web.host) end)
    eventually(["a"], fn -> replicas(b, gateway, web.host) end)

    explanation = Cluster.call(c, ExServiceMeshRouter, :explain, [gateway, web.host])
    assert inspect(explanation) =~ "#{web.host} -> #{name} at a"
    Cluster.stop_endpoint(a, web)
  end

  test "a request at any node reaches the endpoint, also after the connection of the nodes is lost",
       %{peers: [a, b, _c], gateway: gateway, web: web} = context do
    start_gateways(context, [a, b])
    start_endpoint(b, web)
    eventually(["b"], fn -> replicas(a, gateway, web.host) end)
    assert get_at(a, gateway, web.host) == {200, inspect(web.endpoint)}
    assert get_at(a, gateway, "tenant." <> web.host) == {200, inspect(web.endpoint)}
    Cluster.disconnect(a, b)
    eventually([{"b", :last_resort}], fn -> replicas(a, gateway, web.host) end)
    assert get_at(a, gateway, web.host) == {200, inspect(web.endpoint)}
    Cluster.connect([a, b])
    Cluster.stop_endpoint(b, web)

    eventually({404, true}, fn ->
      {status, body} = get_at(a, gateway, web.host)
      {status, body =~ "unknown service"}
    end)
  end

  test "services:, static services, localhost and derived names are not announced",
       %{peers: [a, b, _c], gateway: gateway, web: web} = context do
    other = Map.put(unique("mesh"), :host, "other.example")
    local = unique("mesh")
    applications = [web.application, other.application, local.application]

    start_gateways(context, [a],
      discover: [only: applications],
      dev_domain: "localhost",
      services: %{"static.example" => "http://127.0.0.1:1"},
      mesh: [ip: {127, 0, 0, 1}, services: [except: [other.endpoint]]]
    )

    start_gateways(context, [b], dev_domain: nil)
    start_endpoint(a, other)
    Cluster.start_endpoint(a, local, url: [host: "localhost"])
    start_endpoint(a, web)
    eventually(["a"], fn -> replicas(b, gateway, web.host) end)
    assert [%{hosts: [host]}] = services(b, gateway)
    assert host == web.host
    for web <- [web, other, local], do: Cluster.stop_endpoint(a, web)
  end

  test "a gateway that stops says so, and its endpoints leave the tables at once",
       %{peers: [a, b, _c], gateway: gateway, web: web} = context do
    start_gateways(context, [a, b])
    start_endpoint(b, web)
    eventually(["b"], fn -> replicas(a, gateway, web.host) end)
    Cluster.stop_gateway(b, gateway)
    # The stop waited for the acknowledgement.
    assert replicas(a, gateway, web.host) in [nil, [{"b", :draining}]]
    eventually(nil, fn -> replicas(a, gateway, web.host) end)
    log = Enum.filter(Cluster.log(a), &(&1 =~ "mesh:"))
    assert Enum.any?(log, &(&1 =~ "has joined with "))
    assert Enum.any?(log, &(&1 =~ "is stopping; it gets no more requests"))

    for event <- [:join, :leave] do
      metadata = inspect(%{gateway: gateway, node: "#{Cluster.name(b)}"})
      line = "event [:peer, #{inspect(event)}] #{metadata}"
      eventually(true, fn -> line in Cluster.log(a) end)
    end

    Cluster.stop_endpoint(b, web)
  end

  test "a draining gateway serves its clients while the other nodes have left it",
       %{peers: [a, b, _c], gateway: gateway, web: web} = context do
    start_gateways(context, [a, b], mesh: [ip: {127, 0, 0, 1}, lame_duck: 1_000])
    start_endpoint(b, web)
    eventually(["b"], fn -> replicas(a, gateway, web.host) end)
    eventually(["here"], fn -> replicas(b, gateway, web.host) end)
    drain = Task.async(fn -> Cluster.call(b, ExServiceMeshRouter.Gateway, :drain, [gateway]) end)
    eventually([{"b", :draining}], fn -> replicas(a, gateway, web.host) end)
    assert {503, _} = get_at(a, gateway, web.host)
    assert get_at(b, gateway, web.host) == {200, inspect(web.endpoint)}
    assert Task.yield(drain, 0) == nil
    assert Task.await(drain, 10_000) == :ok
    assert Enum.any?(Cluster.log(b), &(&1 =~ "drains in 1000 ms"))
    Cluster.stop_endpoint(b, web)
  end

  test "a node that does not acknowledge delays a stop by half a second",
       %{peers: [a, b, _c], gateway: gateway} = context do
    start_gateways(context, [a, b])
    eventually(1, fn -> length(Cluster.call(b, Registry, :peers, [gateway])) end)
    :ok = Cluster.call(a, :sys, :suspend, [part(a, gateway, "Member")])
    started = System.monotonic_time(:millisecond)
    Cluster.stop_gateway(b, gateway)
    assert System.monotonic_time(:millisecond) - started >= 500
    :ok = Cluster.call(a, :sys, :resume, [part(a, gateway, "Member")])
  end

  test "a mesh port in use costs a line, and is opened when it is free",
       %{peers: [a, b, _c], gateway: gateway, web: web} = context do
    {:ok, taken} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(taken)
    start_gateways(context, [a], mesh: [ip: {127, 0, 0, 1}, port: port])
    start_gateways(context, [b])
    start_endpoint(a, web)
    eventually(["here"], fn -> replicas(a, gateway, web.host) end)
    member = part(a, gateway, "Member")
    for _ <- 1..2, do: Cluster.call(a, :erlang, :send, [member, :repair])
    Cluster.call(a, :sys, :get_state, [member])
    lines = Enum.filter(Cluster.log(a), &(&1 =~ "cannot listen on 127.0.0.1:#{port}"))
    assert [line] = lines
    assert line =~ "the port is in use"
    assert replicas(b, gateway, web.host) == nil
    :gen_tcp.close(taken)
    Cluster.call(a, :erlang, :send, [member, :repair])
    eventually(["a"], fn -> replicas(b, gateway, web.host) end)
    Cluster.stop_endpoint(a, web)
  end

  test "a lost connection leaves a last resort, and the same gateway comes back",
       %{peers: [a, b, _c], gateway: gateway, web: web} = context do
    start_gateways(context, [a, b])
    start_endpoint(b, web)
    eventually(["b"], fn -> replicas(a, gateway, web.host) end)

    for _ <- 1..3 do
      Cluster.disconnect(a, b)
      eventually([{"b", :last_resort}], fn -> replicas(a, gateway, web.host) end)
      Cluster.connect([a, b])
      eventually(["b"], fn -> replicas(a, gateway, web.host) end)
    end

    Cluster.stop_endpoint(b, web)
    eventually(nil, fn -> replicas(a, gateway, web.host) end)
  end

  test "a killed node is a last resort until its successor under the same name speaks",
       %{peers: [a | _], gateway: gateway, web: web} = context do
    name = "z#{System.unique_integer([:positive])}x#{System.pid()}"
    z = Cluster.start_node("z", name: name)
    Cluster.connect([a, z])
    start_gateways(context, [a, z])
    start_endpoint(z, web)
    eventually(["z"], fn -> replicas(a, gateway, web.host) end)

    Cluster.kill(z)
    eventually([{"z", :last_resort}], fn -> replicas(a, gateway, web.host) end)

    z = Cluster.start_node("z", name: name)
    Cluster.connect([a, z])
    start_gateways(context, [z])
    # Without the endpoint, so that what is left of the old one would show.
    eventually(nil, fn -> replicas(a, gateway, web.host) end)
    start_endpoint(z, web)
    eventually(["z"], fn -> replicas(a, gateway, web.host) end)
    Cluster.kill(z)
  end

  test "a last resort and its key are forgotten after its time",
       %{peers: [a | _], gateway: gateway, web: web} = context do
    z = Cluster.start_node("z")
    Cluster.connect([a, z])
    start_gateways(context, [a, z])
    start_endpoint(z, web)
    eventually(["z"], fn -> replicas(a, gateway, web.host) end)
    Cluster.kill(z)
    eventually([{"z", :last_resort}], fn -> replicas(a, gateway, web.host) end)

    # What its timer sends after a minute; an older timer, of an earlier loss, changes nothing.
    pid = part(a, gateway, "Peers")
    [{id, %{lost_at: lost_at}}] = Map.to_list(Cluster.call(a, :sys, :get_state, [pid]).peers)
    Cluster.call(a, :erlang, :send, [pid, {:expire, id, lost_at - 1}])
    Cluster.call(a, :sys, :get_state, [pid])
    assert replicas(a, gateway, web.host) == [{"z", :last_resort}]
    Cluster.call(a, :erlang, :send, [pid, {:expire, id, lost_at}])
    eventually(nil, fn -> replicas(a, gateway, web.host) end)
    gateway_ref = Cluster.call(a, ExServiceMeshRouter.Gateway, :ref, [gateway])
    eventually([], fn -> Cluster.call(a, ExServiceMeshRouter.Native, :peers, [gateway_ref]) end)
  end

  test "a node whose library has another version of the mesh is ignored, and named",
       %{peers: [a, b, c], gateway: gateway} = context do
    start_gateways(context, [a, b])
    Cluster.call(c, Cluster, :join, [Module.concat(gateway, Scope), {:mesh, 2}])

    for peer <- [a, b] do
      line = "#{Cluster.name(c)} speaks version 2 of the mesh and this node version 1"
      eventually(true, fn -> Enum.any?(Cluster.log(peer), &(&1 =~ line)) end)
      eventually(1, fn -> length(Cluster.call(peer, Registry, :peers, [gateway])) end)
    end
  end

  for part <- ["Scope", "Member", "Peers", "Registry"] do
    test "after a crash of #{part} everything is as before and goes on",
         %{peers: [a, b, _c], gateway: gateway, web: web} = context do
      start_gateways(context, [a, b])
      start_endpoint(b, web)
      eventually(["b"], fn -> replicas(a, gateway, web.host) end)

      for peer <- [a, b] do
        kill(peer, gateway, unquote(part))
        eventually(["b"], fn -> replicas(a, gateway, web.host) end)
      end

      start_endpoint(a, web)
      eventually(["here", "a"], fn -> replicas(b, gateway, web.host) end)
      Cluster.stop_endpoint(b, web)
      eventually(["here"], fn -> replicas(a, gateway, web.host) end)
      Cluster.disconnect(a, b)
      eventually([{"a", :last_resort}], fn -> replicas(b, gateway, web.host) end)
      Cluster.connect([a, b])
      eventually(["a"], fn -> replicas(b, gateway, web.host) end)
      Cluster.stop_endpoint(a, web)
    end
  end

  test "hellos of nonsense, of another version and of liars cost one line each, and nothing else",
       %{peers: [a, b, c], gateway: gateway, web: web} = context do
    start_gateways(context, [a, b])
    start_endpoint(b, web)
    eventually(["b"], fn -> replicas(a, gateway, web.host) end)

    hello = own_hello(b, gateway)

    from_c = %{
      hello
      | member: Cluster.call(c, :erlang, :whereis, [:init]),
        node: "#{Cluster.name(c)}"
    }

    service = hd(hello.services)

    terms = [
      {nil, "an unknown node: dropped a hello"},
      {%{v: 2, library: "9.9.9", member: from_c.member}, "speaks version 2 of the mesh"},
      {%{from_c | services: [%{service | hosts: ["localhost"]}]}, "its `services` is not"},
      {%{from_c | key: "x"}, "its `key` is not an Ed25519 public key"},
      {%{from_c | node: "b@elsewhere"}, ~s|it says that it is "b@elsewhere"|}
    ]

    for {term, expected} <- terms do
      Cluster.call(a, Cluster, :forget_log, [])
      member = part(a, gateway, "Member")
      # Not twice in the log.
      for _ <- 1..3, do: say(c, a, gateway, term)
      # A kind that was logged for this node is not logged again within a minute.
      kill(a, gateway, "Member")
      assert part(a, gateway, "Member") != member
      lines = Enum.filter(Cluster.log(a), &(&1 =~ expected))
      assert {expected, length(lines)} == {expected, 1}
      eventually(["b"], fn -> replicas(a, gateway, web.host) end)
    end

    # It speaks for another node's gateway.
    say(c, a, gateway, %{from_c | seq: hello.seq + 1_000_000})
    eventually(true, fn -> Enum.any?(Cluster.log(a), &(&1 =~ "says that it is")) end)
    assert replicas(a, gateway, web.host) == ["b"]
    Cluster.stop_endpoint(b, web)
  end

  test "a flood is cut off, and the others are heard",
       %{peers: [a, b, c], gateway: gateway, web: web} = context do
    start_gateways(context, [a, b])
    eventually(1, fn -> length(Cluster.call(a, Registry, :peers, [gateway])) end)
    hello = own_hello(b, gateway)

    from_c = %{
      hello
      | member: Cluster.call(c, :erlang, :whereis, [:init]),
        node: "#{Cluster.name(c)}"
    }

    Cluster.call(c, Cluster, :flood, [part(a, gateway, "Member"), {:exmesh_hello, from_c}, 20_000])

    start_endpoint(b, web)
    eventually(["b"], 12_000, fn -> replicas(a, gateway, web.host) end)
    assert [_line] = Enum.filter(Cluster.log(a), &(&1 =~ "says hello more than"))
    Cluster.stop_endpoint(b, web)
  end

  test "a node that is not distributed says so, and joins when it becomes one",
       %{peers: [a | _], gateway: gateway, web: web} = context do
    late = Cluster.start_node("late", distributed: false)
    start_gateways(context, [a, late])
    start_endpoint(a, web)

    eventually(true, fn ->
      Enum.any?(Cluster.log(late), &(&1 =~ "this node is not distributed"))
    end)

    Cluster.distribute(late, "late")
    Cluster.connect([late, a])
    eventually(["a"], fn -> replicas(late, gateway, web.host) end)
    Cluster.stop_endpoint(a, web)
  end

  test "hidden nodes stay out", %{peers: [a | _], gateway: gateway, web: web} = context do
    hidden = Cluster.start_node("h", arguments: [~c"-hidden"])
    true = Cluster.call(hidden, Node, :connect, [Cluster.name(a)])
    start_gateways(context, [a, hidden])
    start_endpoint(hidden, web)
    eventually(["here"], fn -> replicas(hidden, gateway, web.host) end)
    assert Cluster.call(a, ExServiceMeshRouter.Mesh.Scope, :others, [gateway]) == []
    assert replicas(a, gateway, web.host) == nil
  end

  test "without mesh there is no process of it" do
    gateway = start_gateway()

    for part <- ["Scope", "Member", "Peers"],
        do: assert(Process.whereis(Module.concat(gateway, part)) == nil)
  end
end
