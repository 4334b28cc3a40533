defmodule ExServiceMeshRouter.Registry.Replicas do
  @moduledoc false
  # Merges the services of this node with those of its peers. A peer is the gateway of another node:
  #
  #     %{id: id, node: "b@host", state: state, services: [%{name: name, hosts: hosts, since: since}]}
  #
  # Endpoints with the same module and a common host are replicas of one service, which keeps the hosts
  # of this node. With other hosts they are another service: one release may serve other customers on
  # each node. Must not know how the peers were found.

  alias ExServiceMeshRouter.Registry.Service

  @doc "Returns `%{key => service}` of this node's services and the peers'."
  def merge(services, peers) do
    # By node, so that all nodes have the upstreams in the same order.
    offers =
      for peer <- Enum.sort_by(peers, &{&1.node, &1.id}),
          offer <- peer.services,
          do: {offer, peer}

    endpoints =
      for {key, %{source: :endpoint} = service} <- services, into: %{}, do: {service.name, key}

    Enum.reduce(offers, services, fn {offer, peer}, services ->
      upstream = %{kind: :peer, id: peer.id, node: peer.node, state: peer.state}
      local = services[endpoints[offer.name]]

      if local && Enum.any?(offer.hosts, &(&1 in local.hosts)),
        do: Map.put(services, local.key, replica(local, upstream, offer)),
        else: remote(services, offer, upstream)
    end)
  end

  # A service that begins to listen on another node has changed its state.
  defp replica(service, upstream, offer) do
    since = if service.upstreams == [], do: offer.since, else: service.since
    %{service | upstreams: service.upstreams ++ [upstream], since: since}
  end

  defp remote(services, offer, upstream) do
    service = Service.peer(offer.name, Enum.sort(offer.hosts), [upstream], offer.since)
    Map.update(services, service.key, service, &%{&1 | upstreams: &1.upstreams ++ [upstream]})
  end
end
