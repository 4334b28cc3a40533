defmodule ExServiceMeshRouter.Mesh.AddressesTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Mesh.Addresses

  defp candidates(changes) do
    %{node: "b@node1.example", member: self(), advertise: nil, ips: ["10.0.0.2"], port: 4600}
    |> Map.merge(Map.new(changes))
    |> Addresses.candidates()
  end

  test "the advertised address is tried first, the name of the node last" do
    assert candidates(advertise: {"gw.example", 9_000}) ==
             [{"gw.example", 9_000}, {"10.0.0.2", 4600}, {"node1.example", 4600}]

    assert candidates(node: "b@10.0.0.2") == [{"10.0.0.2", 4600}]
    assert candidates(node: "strange") == [{"10.0.0.2", 4600}]
  end

  test "names have the addresses that were found" do
    candidates = candidates(advertise: {"gw.example", 9_000})
    assert Addresses.names(candidates) == ["gw.example", "node1.example"]
    known = %{"gw.example" => [{10, 0, 0, 9}, {0xFDAA, 0, 0, 0, 0, 0, 0, 9}]}

    assert Addresses.to_native(candidates, known) == [
             %{ip: "10.0.0.9", port: 9_000},
             %{ip: "fdaa::9", port: 9_000},
             %{ip: "10.0.0.2", port: 4600}
           ]

    assert %{"localhost" => [{127, 0, 0, 1} | _]} = Addresses.look_up(["localhost", "no.invalid"])
  end

  test "it listens on all addresses unless something else is said" do
    assert Addresses.to_bind(nil) == ["0.0.0.0", "::"]
    assert Addresses.to_bind(:loopback) == ["127.0.0.1", "::1"]
    assert Addresses.to_bind({10, 0, 0, 2}) == ["10.0.0.2"]
    assert Addresses.to_bind([{10, 0, 0, 2}, {0, 0, 0, 0, 0, 0, 0, 1}]) == ["10.0.0.2", "::1"]
  end

  test "it announces addresses that others can reach" do
    assert Addresses.to_announce(["127.0.0.1"]) == ["127.0.0.1"]
    announced = Addresses.to_announce(["0.0.0.0", "::"])

    refute Enum.any?(
             announced,
             &(&1 in ["0.0.0.0", "::", "127.0.0.1", "::1"] or &1 =~ ~r/^fe[89ab]/)
           )

    refute Enum.any?(Addresses.to_announce(["0.0.0.0"]), &(&1 =~ ":"))
  end
end
