defmodule ExServiceMeshRouter.FakePeers do
  @moduledoc """
  Other nodes that do not exist, as the processes of the mesh and the data plane would know them: for what
  people see of many nodes. The gateway needs `mesh`; this VM need not be a node.
  """

  alias ExServiceMeshRouter.{Gateway, Native, Registry}
  alias ExServiceMeshRouter.Mesh.Memory

  @key <<0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00>>

  @doc """
  Gives the gateway these peers: maps with `node`, `services` as `{endpoint, host}`, and if wanted `port`
  (nothing listens there), `state`, `library` and `checks`.
  """
  def put(gateway, peers) do
    ref = Gateway.ref(gateway)
    {:ok, _} = Native.open_mesh(ref, %{ips: ["127.0.0.1"], port: 0, prefer: nil})
    Memory.put_listener(gateway, {:open, ["127.0.0.1:4600"]})
    peers = Enum.map(peers, &Map.merge(defaults(&1.node), &1))
    :ok = Native.put_peers(ref, Enum.map(peers, &pin/1))
    for {id, _peer} <- Memory.peers(gateway), do: Memory.delete_peer(gateway, id)
    Enum.each(peers, &Memory.put_peer(gateway, known(&1)))
    :ok = Registry.put_peers(gateway, for(peer <- peers, peer.state != :joining, do: offer(peer)))
  end

  defp defaults(node) do
    id = node |> :erlang.md5() |> Base.encode16(case: :lower)
    %{id: id, state: :serving, port: 1, library: "0.1.0", checks: %{}, services: []}
  end

  defp pin(peer) do
    addresses = [%{ip: "127.0.0.1", port: peer.port}]
    %{id: peer.id, name: peer.node, key: @key <> peer.id, addresses: addresses}
  end

  defp known(peer) do
    services =
      for {endpoint, host} <- peer.services,
          do: %{endpoint: endpoint, application: "app", hosts: [host], since: 0}

    %{
      id: peer.id,
      node: peer.node,
      lost_at: if(peer.state == :last_resort, do: 0),
      hello: %{
        node: peer.node,
        state: if(peer.state == :draining, do: :draining, else: :serving),
        services: services,
        library: peer.library,
        checks: peer.checks
      }
    }
  end

  defp offer(peer) do
    services =
      for {endpoint, host} <- peer.services,
          do: %{name: endpoint, hosts: [host], since: ~U[2024-01-01 00:00:00Z]}

    %{id: peer.id, node: peer.node, state: peer.state, services: services}
  end
end
