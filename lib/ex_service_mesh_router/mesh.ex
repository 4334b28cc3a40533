defmodule ExServiceMeshRouter.Mesh do
  @moduledoc """
  Connects the gateways of an Erlang cluster (`mesh: true`, see `ExServiceMeshRouter.Config`).

  `status/1` says in one line whether it works. `ExServiceMeshRouter.services/0` has the nodes of each
  service, and `ExServiceMeshRouter.Doctor` finds what is wrong.
  """

  # Finds the gateways of other nodes, tells them the endpoints of this node, and gives theirs to the
  # registry. The data plane moves the requests; this room must not know how.
  #
  # Three processes, each below a Guard: Scope is a `:pg` of its own, Member speaks with the other nodes,
  # Peers keeps what they said. Only gateways of the same name meet, because the scope has that name.

  alias ExServiceMeshRouter.Mesh.{Member, Peers, Scope, Status}

  @typedoc """
  The state of the mesh of a gateway.

    * `:state` - `:off` (no `mesh`, or the gateway does not run), `:not_distributed` (the node has no name
      yet), `:not_listening` (see `:problem`), `:starting`, or `:on`
    * `:node` - this node
    * `:addresses` - where the gateway listens for those of other nodes
    * `:problem` - why it does not
    * `:nodes` - the other nodes, those that requests avoid first: `:node`, `:state`, `:address` and `:error`
      as in `t:ExServiceMeshRouter.service/0` (`:joining` is a node that has not acknowledged this one yet),
      `:connections` to it, the number of its `:endpoints`, and its version of this `:library`
    * `:line` - all of this in one line of text
  """
  @type status :: %{
          state: :off | :not_distributed | :not_listening | :starting | :on,
          node: String.t() | nil,
          addresses: [String.t()],
          problem: String.t() | nil,
          nodes: [map()],
          line: String.t()
        }

  @doc """
  Returns the state of the mesh.

      iex> ExServiceMeshRouter.Mesh.status().line
      "a@10.0.0.1 listens on 0.0.0.0:4600, 2 other nodes (1 draining)"
  """
  @spec status(module()) :: status()
  def status(name \\ ExServiceMeshRouter), do: Status.gather(name)

  @doc false
  # The modules of the processes, in the order in which they start.
  def parts(%{mesh: nil}), do: []
  def parts(_config), do: [Scope, Member, Peers]

  @doc false
  # Tells the other nodes to send no more requests to this one, and returns when they have acknowledged,
  # or after half a second.
  defdelegate leave(name), to: Member
end
