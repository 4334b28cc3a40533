defmodule ExServiceMeshRouter.Mesh do
  @moduledoc false
  # Connects the gateways of an Erlang cluster: finds them, tells them the endpoints of this node, and
  # gives theirs to the registry. The data plane moves the requests; this room must not know how.
  #
  # Three processes, each below a Guard: Scope is a `:pg` of its own, Member speaks with the other nodes,
  # Peers keeps what they said. Only gateways of the same name meet, because the scope has that name.

  alias ExServiceMeshRouter.Mesh.{Member, Peers, Scope}

  @doc "Returns the modules of the processes, in the order in which they start."
  def parts(%{mesh: nil}), do: []
  def parts(_config), do: [Scope, Member, Peers]

  @doc """
  Tells the other nodes to send no more requests to this one, and returns when they have acknowledged,
  or after half a second.
  """
  defdelegate leave(name), to: Member
end
