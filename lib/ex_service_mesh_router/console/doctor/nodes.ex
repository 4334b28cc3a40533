defmodule ExServiceMeshRouter.Doctor.Nodes do
  @moduledoc false
  # Collects what the checks know of the mesh: its status, and what each node has said, this one first.

  alias ExServiceMeshRouter.{Mesh, Registry}
  alias ExServiceMeshRouter.Mesh.{Checks, Hello, Memory}

  # Names that a finding has.
  @most 3

  # said: `%{node, library, endpoints: [{name, application}], checks}`. status: see Mesh.status/1.
  defstruct [:status, said: []]

  @doc "Returns what is known, or `nil` without a mesh."
  def gather(name) do
    case Mesh.status(name) do
      %{state: :off} -> nil
      status -> %__MODULE__{status: status, said: [own(name, status) | others(name)]}
    end
  end

  defp own(name, status) do
    services = Registry.announced(name)

    %{
      node: status.node || "this node",
      library: Hello.library(),
      endpoints: for(it <- services, do: {it.name, Atom.to_string(it.application)}),
      checks: Checks.own(services)
    }
  end

  defp others(name) do
    for {_id, %{hello: hello}} <- Enum.sort_by(Memory.peers(name), fn {_id, it} -> it.node end) do
      %{
        node: hello.node,
        library: hello.library,
        endpoints: for(it <- hello.services, do: {it.endpoint, it.application}),
        checks: hello.checks
      }
    end
  end

  @doc "Returns `[{value, nodes}]` if the nodes have different values of a check, else `[]`."
  def differences(said, value) do
    groups = said |> Enum.filter(&value.(&1)) |> Enum.group_by(value, & &1.node)
    if map_size(groups) > 1, do: Enum.sort_by(groups, fn {_value, nodes} -> nodes end), else: []
  end

  @doc "Returns names as text, the first three of many."
  def names(names) do
    {shown, more} = Enum.split(names, @most)
    more = if more == [], do: "", else: " and #{length(more)} more"
    Enum.join(shown, ", ") <> more
  end
end
