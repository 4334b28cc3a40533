defmodule ExServiceMeshRouter.Console.Places do
  @moduledoc false
  # Lists where a service runs, and what the nodes of the mesh have, in few words even if there are many.
  # Takes services and the status of the mesh as the API returns them, or as JSON has them (read/1): a
  # state may be text.

  alias ExServiceMeshRouter.Registry.PeerState

  @most_places 8
  @most_nodes 20

  @doc """
  Returns `{places, more}`: the first upstreams as `{text, state}`, and how many more there are. The own
  ones come first, then the nodes that requests avoid. The state is `nil` for an upstream that is used.
  """
  def list(service, most \\ @most_places) do
    peers = Map.get(service, :peers, [])
    nodes = MapSet.new(peers, & &1.node)
    {used, avoided} = Enum.split_with(peers, &PeerState.used?/1)

    places =
      if(service[:in_vm] == true and service.upstreams != [], do: [{"in VM", nil}], else: []) ++
        for(text <- service.upstreams, text not in nodes, do: {text, nil}) ++
        for(peer <- avoided, do: {peer.node, PeerState.words(peer.state)}) ++
        for(peer <- used, do: {peer.node, nil})

    {shown, more} = Enum.split(places, most)
    {shown, length(more)}
  end

  @doc "Returns lines about the services that `in_vm` names and that use their sockets all the same."
  def not_in_vm(services) do
    for %{name: name, in_vm: why} when is_binary(why) <- services,
        uniq: true,
        do: "#{name} is not served in VM: #{why}"
  end

  @doc "Returns the same as one text, which is empty for no upstreams."
  def text(service, most \\ @most_places) do
    {places, more} = list(service, most)
    Enum.map_join(places, ", ", &place/1) <> more(more)
  end

  @doc "Returns the text of a place."
  def place({text, nil}), do: text
  def place({text, state}), do: "#{text} (#{state})"

  @doc "Returns how many upstreams get requests as usual, as `3` or `2/3`."
  def count(service) do
    avoided = Enum.count(Map.get(service, :peers, []), &(not PeerState.used?(&1)))
    all = length(service.upstreams)
    if avoided == 0, do: "#{all}", else: "#{all - avoided}/#{all}"
  end

  @doc "Returns lines about the nodes that requests avoid."
  def avoided(mesh, most \\ @most_nodes) do
    nodes = Enum.reject(mesh.nodes, &PeerState.used?/1)
    {shown, more} = Enum.split(nodes, most)

    for(
      node <- shown,
      do: "#{node.node} is #{PeerState.words(node.state)}: #{PeerState.why(node)}"
    ) ++
      if(more == [], do: [], else: ["and #{length(more)} more nodes"])
  end

  @doc "Returns the first nodes, and how many more there are."
  def nodes(mesh, most \\ @most_nodes) do
    {shown, more} = Enum.split(mesh.nodes, most)
    {shown, length(more)}
  end

  defp more(0), do: ""
  defp more(more), do: " and #{more} more"

  @doc "Reads the peers of a service, or the nodes of a mesh, from JSON. Other versions may have none."
  def read(nil), do: []

  def read(peers) do
    for peer <- peers,
        do: %{
          node: peer["node"],
          state: peer["state"],
          address: peer["address"],
          error: peer["error"]
        }
  end
end
