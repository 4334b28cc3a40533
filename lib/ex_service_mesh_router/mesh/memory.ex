defmodule ExServiceMeshRouter.Mesh.Memory do
  @moduledoc false
  # Keeps in the gateway's Store what the processes of the mesh tell each other and what a restarted one
  # goes on with.

  alias ExServiceMeshRouter.Gateway.Store

  @doc "Returns the incarnation of this node's data plane, or `nil` if the mesh port is not open."
  def incarnation(name), do: Store.get(name, :mesh_incarnation)
  def put_incarnation(name, incarnation), do: Store.put(name, :mesh_incarnation, incarnation)

  @doc "Returns `{:open, addresses}`, `{:problem, text}`, or `nil` before the mesh port was tried."
  def listener(name), do: Store.get(name, :mesh_listener)
  def put_listener(name, listener), do: Store.put(name, :mesh_listener, listener)

  @doc "Returns `%{incarnation => term}` of the peers that the data plane knows, see Native.put_peers/2."
  def pins(name), do: Store.get(name, :mesh_pins, %{})
  def put_pins(name, pins), do: Store.put(name, :mesh_pins, pins)

  @doc "Returns `%{incarnation => peer}` of all peers, see Peers."
  def peers(name), do: Store.all(name, :mesh_peer)
  def put_peer(name, peer), do: Store.put(name, {:mesh_peer, peer.id}, peer)
  def delete_peer(name, id), do: Store.delete(name, {:mesh_peer, id})

  @doc "Returns the name of the process Peers, which gets checked hellos as `{:hello, hello}`."
  def peers_process(name), do: Module.concat(name, Peers)
end
