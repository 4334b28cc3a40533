defmodule ExServiceMeshRouter.Registry.TableTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Registry.{Service, Table}

  @up [%{kind: :tcp, ip: {127, 0, 0, 1}, port: 1}]

  defp build(services, addresses \\ %{}, meaningless \\ []),
    do: services |> Map.new(&{&1.key, &1}) |> Table.build(addresses, meaningless)

  defp owners(table), do: for({host, {name, _}} <- table.hosts, into: %{}, do: {host, name})

  defp endpoint(module, hosts, upstreams \\ @up, derived \\ []),
    do: Service.endpoint(module, :app, hosts, upstreams, derived)

  test "each service has its hosts and upstreams in a row" do
    table =
      build([Service.static("a.local", @up, :config), endpoint(B, ["b.local"], [], ["b.x"])])

    assert Enum.sort_by(table.rows, & &1.name) == [
             %{name: "B", hosts: ["b.local", "b.x"], upstreams: []},
             %{name: "a.local", hosts: ["a.local"], upstreams: @up}
           ]

    assert table.hosts["a.local"] == {"a.local", @up}
  end

  test "configured services come before endpoints, and listening endpoints before others" do
    written = Service.static("x.local", [], :runtime)
    assert owners(build([endpoint(A, ["x.local"]), written])) == %{"x.local" => "x.local"}
    table = build([endpoint(A, ["x.local"], []), endpoint(B, ["x.local"])])
    assert owners(table) == %{"x.local" => "B"}
    # The name decides otherwise, so that each start ends the same way.
    table = build([endpoint(B, ["x.local"]), endpoint(A, ["x.local"])])
    assert owners(table) == %{"x.local" => "A"}
    assert MapSet.to_list(table.conflicts) == [{"x.local", "A", "B"}]
  end

  test "an endpoint that does not listen causes no conflict" do
    table = build([endpoint(A, ["x.local"]), endpoint(B, ["x.local"], [])])
    assert MapSet.size(table.conflicts) == 0
    # It has no host left, and so no row.
    assert [%{name: "A"}] = table.rows
  end

  test "a derived host never takes a configured host" do
    table = build([endpoint(A, ["a.local"], @up, ["b.x"]), endpoint(Z, ["b.x"])])
    assert owners(table) == %{"a.local" => "A", "b.x" => "Z"}
    assert MapSet.size(table.conflicts) == 0
  end

  test "a shared default host goes to its only endpoint, and to none of several" do
    table = build([endpoint(A, ["localhost"])], %{}, ["localhost"])
    assert owners(table) == %{"localhost" => "A"}

    table =
      build([endpoint(A, ["localhost"]), endpoint(B, ["localhost"], [])], %{}, ["localhost"])

    assert owners(table) == %{}
    assert table.shared == %{"localhost" => ["A", "B"]}
    # A host that is configured belongs to its service.
    services = [endpoint(A, ["localhost"]), endpoint(B, ["localhost"])]
    table = build([Service.static("localhost", @up, :config) | services], %{}, ["localhost"])
    assert owners(table) == %{"localhost" => "localhost"}
  end

  test "named upstreams have the known addresses" do
    service =
      Service.static("a", [%{kind: :name, host: "db", port: 80}, Upstream.unix("/s")], :config)

    assert [%{name: "a", upstreams: [%{path: "/s"}]}] = build([service]).rows
    known = %{"db" => [{10, 0, 0, 1}, {10, 0, 0, 2}]}

    [%{upstreams: upstreams}] = build([service], known).rows

    assert upstreams == [
             Upstream.tcp({10, 0, 0, 1}, 80),
             Upstream.tcp({10, 0, 0, 2}, 80),
             Upstream.unix("/s")
           ]
  end

  test "routed?/2 is true for a host or a host above it" do
    table = build([Service.static("a.local", @up, :config)])
    assert Table.routed?(table, "a.local")
    assert Table.routed?(table, "t.a.local")
    refute Table.routed?(table, "local")
    refute Table.routed?(table, nil)
  end
end
