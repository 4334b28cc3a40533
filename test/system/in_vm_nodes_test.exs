defmodule ExServiceMeshRouter.System.InVmNodesTest do
  # The gateways of other nodes, for an endpoint that is served in VM on its own.
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExServiceMeshRouter.EndpointStandIn, only: [unique: 1]

  alias ExServiceMeshRouter.Cluster

  if reason = Cluster.unavailable() do
    IO.puts("skipped, endpoints in VM on other nodes: #{reason}")
    @moduletag skip: reason
  end

  setup do
    [a, b] = peers = for name <- ~w(a b), do: Cluster.start_node(name)
    gateway = Module.concat(__MODULE__, "Gateway#{System.unique_integer([:positive])}")
    web = unique("called")
    options = [discover: [only: [web.application]], in_vm: :auto]
    for peer <- peers, do: Cluster.start_gateway(peer, gateway, options)
    Cluster.connect(peers)
    %{a: a, b: b, gateway: gateway, web: web, host: web.name <> ".example"}
  end

  defp ask(peer, %{gateway: gateway, host: host}, version, fields \\ "") do
    port = Cluster.call(peer, ExServiceMeshRouter, :port, [gateway])
    request = "GET / HTTP/#{version}\r\nHost: #{host}\r\nConnection: close\r\n#{fields}\r\n"
    "http://127.0.0.1:#{port}" |> RawClient.exchange(request) |> answer()
  end

  defp start(peer, %{web: web, host: host}) do
    settings = [adapter: Bandit.PhoenixAdapter, plug: &Cluster.plug/1, url: [host: host]]
    Cluster.start_endpoint(peer, web, settings)
  end

  test "are answered in VM, with the client's version and address", %{a: a, b: b} = context do
    start(b, context)

    for {version, seen} <- [{"1.0", :"HTTP/1.0"}, {"1.1", :"HTTP/1.1"}] do
      expected = {200, inspect({Cluster.name(b), seen, {127, 0, 0, 1}})}
      fields = "X-Forwarded-For: 203.0.113.9\r\nVia: 2.0 other\r\n"
      eventually(expected, 5_000, fn -> ask(a, context, version, fields) end)
      eventually(expected, 5_000, fn -> ask(b, context, version, fields) end)
    end
  end

  test "follow the endpoint to another node", %{a: a, b: b, web: web} = context do
    from = fn peer -> {200, inspect({Cluster.name(peer), :"HTTP/1.1", {127, 0, 0, 1}})} end
    start(b, context)
    for peer <- [a, b], do: eventually(from.(b), 5_000, fn -> ask(peer, context, "1.1") end)
    start(a, context)
    eventually(from.(a), 5_000, fn -> ask(a, context, "1.1") end)
    Cluster.stop_endpoint(b, web)
    for peer <- [a, b], do: eventually(from.(a), 5_000, fn -> ask(peer, context, "1.1") end)
  end
end
