defmodule ExServiceMeshRouter.Registry.ReplicasTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Registry.{Changes, Replicas, Service, Table}

  @up [%{kind: :unix, path: "/a"}]
  @since ~U[2024-01-01 00:00:00Z]

  defp peer(node, services, state \\ :serving) do
    services = for {name, hosts} <- services, do: %{name: name, hosts: hosts, since: @since}
    %{id: "id of " <> node, node: node, state: state, services: services}
  end

  defp merge(services, peers),
    do: services |> Map.new(&{&1.key, &1}) |> Replicas.merge(peers)

  defp table(services, peers), do: services |> merge(peers) |> Table.build(%{})

  defp at(table) do
    for {host, {name, upstreams}} <- table.hosts,
        into: %{},
        do: {host, {name, Enum.map(upstreams, &Upstream.to_string/1)}}
  end

  defp endpoint(module, hosts, upstreams \\ @up, derived \\ []),
    do: Service.endpoint(module, :app, hosts, upstreams, derived)

  test "an endpoint with the same module and host on other nodes is a replica" do
    peers = [peer("c@h", [{"A", ["a.local"]}]), peer("b@h", [{"A", ["a.local"]}])]
    table = table([endpoint(A, ["a.local"], @up, ["a.localhost"])], peers)
    all = {"A", ["unix:/a", "b@h", "c@h"]}
    assert at(table) == %{"a.local" => all, "a.localhost" => all}
  end

  test "an endpoint that does not listen here is served by its replicas" do
    service = %{endpoint(A, ["a.local"], []) | since: DateTime.utc_now()}
    merged = merge([service], [peer("b@h", [{"A", ["a.local"]}])])

    assert %{state: :listening, since: @since, peers: [%{node: "b@h", state: :serving}]} =
             Service.public(merged[service.key])
  end

  test "the same module with another host is a service of its own, and this node's row comes last" do
    table =
      table([endpoint(A, ["one.local"])], [
        peer("b@h", [{"A", ["two.local"]}]),
        peer("c@h", [{"A", ["two.local"]}])
      ])

    assert at(table) == %{
             "one.local" => {"A", ["unix:/a"]},
             "two.local" => {"A", ["b@h", "c@h"]}
           }

    assert [%{hosts: ["two.local"]}, %{hosts: ["one.local"]}] = table.rows
  end

  test "configured services come before local endpoints, these before other nodes' and before those that do not listen" do
    remote = peer("b@h", [{"B", ["x.local"]}])
    static = Service.static("x.local", @up, :config)
    owner = &(at(&1)["x.local"] |> elem(0))

    assert owner.(table([static, endpoint(Z, ["x.local"])], [remote])) == "x.local"
    assert owner.(table([endpoint(Z, ["x.local"])], [remote])) == "Z"
    assert owner.(table([endpoint(Aa, ["x.local"], [])], [remote])) == "B"
  end

  test "among other nodes the smallest name decides, and the conflict names the nodes" do
    peers = [peer("b@h", [{"Z", ["x.local"]}]), peer("c@h", [{"A", ["x.local"]}])]
    table = table([], peers)
    assert at(table) == %{"x.local" => {"Z", ["b@h"]}}
    assert MapSet.to_list(table.conflicts) == [{"x.local", "Z on b@h", "A on c@h"}]
  end

  test "a draining peer gets no requests, a last resort is marked, and both are shown" do
    draining = peer("b@h", [{"A", ["a.local"]}], :draining)
    lost = peer("c@h", [{"A", ["a.local"]}], :last_resort)
    table = table([], [draining, lost])

    assert [%{upstreams: [%{id: "id of c@h", last_resort: true} = upstream]}] = table.rows
    assert Upstream.to_native(upstream) == %{kind: :peer, id: "id of c@h", last_resort: true}

    assert [%{peers: [%{state: :draining}, %{state: :last_resort}], state: :listening}] =
             [] |> merge([draining, lost]) |> Map.values() |> Enum.map(&Service.public/1)

    assert [%{state: :not_listening}] =
             [] |> merge([draining]) |> Map.values() |> Enum.map(&Service.public/1)
  end

  test "what the data plane sees of a peer changes no row, and a peer's restart is no change of routes" do
    services = [{"A", ["a.local"]}]
    before = table([], [peer("b@h", services)])
    assert table([], [peer("b@h", services, :suspect)]).rows == before.rows
    restarted = table([], [%{peer("b@h", services, :last_resort) | id: "new"}])
    assert restarted.rows != before.rows
    assert Changes.events(before, restarted) == []
  end
end
