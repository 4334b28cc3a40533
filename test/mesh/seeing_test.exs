defmodule ExServiceMeshRouter.Mesh.SeeingTest do
  # What two real nodes say of each other.
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExServiceMeshRouter.EndpointStandIn, only: [unique: 1]

  alias ExServiceMeshRouter.{Cluster, Doctor, Mesh, Prometheus}

  if reason = Cluster.unavailable() do
    IO.puts("skipped, two nodes that see each other: #{reason}")
    @moduletag skip: reason
  end

  defp findings(peer, gateway) do
    for %{check: check} = finding <- Cluster.call(peer, Doctor, :findings, [gateway]),
        check in [:mesh_settings, :mesh_versions, :mesh_unreachable, :mesh_down],
        do: finding
  end

  defp status(peer, gateway), do: Cluster.call(peer, Mesh, :status, [gateway])

  test "the state of the mesh, its metrics, and different secrets of replicas" do
    [a, b] = peers = for name <- ~w(a b), do: Cluster.start_node(name)
    gateway = Module.concat(__MODULE__, Gateway)
    web = unique("seen")
    host = web.name <> ".example"

    for peer <- peers,
        do: Cluster.start_gateway(peer, gateway, discover: [only: [web.application]])

    eventually(:on, 5_000, fn -> status(a, gateway).state end)

    assert status(a, gateway).line =~
             ~r/^a.* listens on 127\.0\.0\.1:\d+, no other node: connect them/

    for {peer, secret} <- [{a, "the secret of one"}, {b, "the secret of two"}],
        do: Cluster.start_endpoint(peer, web, url: [host: host], secret_key_base: secret)

    Cluster.connect(peers)
    eventually(true, 5_000, fn -> status(a, gateway).line =~ ~r/, 1 other node$/ end)
    assert [%{state: :serving, endpoints: 1}] = status(b, gateway).nodes

    # It has been greeted.
    metric = ~s(mesh_peer_state{node="#{Cluster.name(b)}",state="up"} 1)
    eventually(true, 5_000, fn -> Cluster.call(a, Prometheus, :scrape, [gateway]) =~ metric end)

    for peer <- peers do
      eventually([:mesh_settings], 5_000, fn ->
        for it <- findings(peer, gateway), do: it.check
      end)

      assert [%{problem: problem}] = findings(peer, gateway)
      assert problem =~ ~r/one on a.*; another on b/
      hello = Cluster.call(peer, Cluster, :hello, [gateway])
      assert map_size(hello.checks) == 1

      for text <- [inspect(hello, limit: :infinity) | Cluster.log(peer)],
          do: refute(text =~ "the secret of")
    end

    Cluster.stop_endpoint(b, web)
    Cluster.start_endpoint(b, web, url: [host: host], secret_key_base: "the secret of one")
    for peer <- peers, do: eventually([], 5_000, fn -> findings(peer, gateway) end)
    Cluster.disconnect(a, b)
    eventually(true, 5_000, fn -> status(a, gateway).line =~ "1 other node (1 last resort)" end)
  end
end
