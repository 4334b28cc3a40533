defmodule ExServiceMeshRouter.Registry.Service do
  @moduledoc false
  # A service of the registry: the hosts that it claims, and where it listens. `derived` hosts come
  # from the name of the application, see DevNames. The registry sets `since`, the time of the last
  # change of the state. `in_vm` is true for an endpoint whose requests need no socket, and a text that
  # says why for one that was to be so. The source `:peer` is an endpoint that only other nodes have, see
  # Replicas.

  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Registry.PeerState

  # Nodes that a label names.
  @most_nodes 3

  @enforce_keys [:key, :name, :hosts, :upstreams, :source]
  defstruct @enforce_keys ++ [:application, :endpoint, :since, derived: [], in_vm: false]

  @doc "Makes a service that is not an endpoint."
  def static(host, upstreams, source) when source in [:config, :runtime] do
    %__MODULE__{
      key: {:host, host},
      name: host,
      hosts: [host],
      upstreams: upstreams,
      source: source
    }
  end

  @doc "Makes a service of a gRPC server of this VM. Without upstreams, it does not listen."
  def grpc(server, host, upstreams),
    do: %{static(host, upstreams, :config) | key: {:grpc, server}, name: inspect(server)}

  @doc "Makes a service of a Phoenix endpoint. Without upstreams, it does not listen."
  def endpoint(endpoint, application, hosts, upstreams, derived \\ []) do
    %__MODULE__{
      key: {:endpoint, endpoint},
      name: inspect(endpoint),
      hosts: hosts,
      derived: derived -- hosts,
      upstreams: upstreams,
      source: :endpoint,
      application: application,
      endpoint: endpoint
    }
  end

  @doc "Makes a service of an endpoint that only other nodes have."
  def peer(name, hosts, upstreams, since) do
    %__MODULE__{
      key: {:peer, name, hosts},
      name: name,
      hosts: hosts,
      upstreams: upstreams,
      source: :peer,
      since: since
    }
  end

  @doc """
  Returns the sort key of a service for a host that several claim: configured services come before
  endpoints, local listening endpoints before those of other nodes, and endpoints that do not listen
  last. The node and the name decide otherwise, so that all starts and all nodes have the same result.
  """
  def precedence(%{source: source} = service) when source in [:config, :runtime],
    do: {0, "", service.name}

  def precedence(service) do
    case Enum.split_with(service.upstreams, &Upstream.peer?/1) do
      {_peers, [_ | _]} -> {1, "", service.name}
      {[], []} -> {3, "", service.name}
      {peers, []} -> {2, peers |> Enum.map(& &1.node) |> Enum.min(), service.name}
    end
  end

  @doc "Returns the name, with the nodes of an endpoint that only other nodes have."
  def label(%{source: :peer, upstreams: upstreams} = service) do
    {shown, more} = upstreams |> Enum.map(& &1.node) |> Enum.split(@most_nodes)
    more = if more == [], do: "", else: " and #{length(more)} more"
    "#{service.name} on #{Enum.join(shown, ", ")}#{more}"
  end

  def label(service), do: service.name

  @doc "Returns the map of `ExServiceMeshRouter.services/0`; `links` are those of PeerState.links/1."
  def public(service, links \\ %{}) do
    service
    |> Map.take([:name, :hosts, :source, :application, :endpoint, :since, :in_vm])
    |> Map.put(:upstreams, Enum.map(service.upstreams, &Upstream.to_string/1))
    |> Map.put(:state, state(service))
    |> Map.put(:peers, peers(service, links))
  end

  defp peers(service, links) do
    for %{kind: :peer} = peer <- service.upstreams,
        do: PeerState.public(peer.node, peer.state, links[peer.id])
  end

  @doc "Returns the state. Requests for a service that does not listen get a 503."
  def state(service) do
    if Enum.all?(service.upstreams, &match?(%{kind: :peer, state: :draining}, &1)),
      do: :not_listening,
      else: :listening
  end
end
