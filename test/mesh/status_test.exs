defmodule ExServiceMeshRouter.Mesh.StatusTest do
  # What the one line says; test/mesh/membership_test.exs has what a real mesh says.
  use ExServiceMeshRouter.GatewayCase, async: true

  alias ExServiceMeshRouter.Mesh
  alias ExServiceMeshRouter.Mesh.Status

  @facts %{
    node: :"a@10.0.0.1",
    distributed?: true,
    listener: {:open, ["0.0.0.0:4600", "[::]:4600"]},
    connected: [],
    nodes: []
  }

  defp line(changes), do: @facts |> Map.merge(Map.new(changes)) |> Status.new() |> Map.get(:line)

  defp peer(node, state), do: %{node: node, state: state, address: nil, error: nil}

  test "a line for each state" do
    assert line([]) ==
             "a@10.0.0.1 listens on 0.0.0.0:4600 and [::]:4600, no other node: connect them, e.g. " <>
               "with libcluster or dns_cluster"

    assert line(listener: nil, distributed?: false) =~ "waiting for distribution: start the node"
    assert line(listener: nil) == "a@10.0.0.1 is starting"

    assert line(listener: {:problem, "0.0.0.0:4600: the port is in use"}) ==
             "a@10.0.0.1 cannot listen for other nodes: 0.0.0.0:4600: the port is in use"

    assert line(connected: ~w(e@h d@h c@h b@h)) =~
             "no gateway on the connected nodes (b@h, c@h, d@h and 1 more): set `mesh: true` there"
  end

  test "counts the nodes, and names what some of them have, those first" do
    nodes = [peer("b@h", :serving), peer("d@h", :draining), peer("c@h", :last_resort)]
    status = Status.new(%{@facts | nodes: nodes})
    assert status.line =~ ", 3 other nodes (1 draining, 1 last resort)"
    assert Enum.map(status.nodes, & &1.node) == ~w(c@h d@h b@h)
    assert line(nodes: [peer("b@h", :serving)]) =~ ~r/, 1 other node$/
  end

  test "is off without a mesh and without a gateway" do
    assert %{state: :off, line: "off", nodes: []} = Mesh.status(start_gateway())
    assert %{state: :off} = Mesh.status(NoSuchGateway)
  end
end
