defmodule ExServiceMeshRouter.Doctor.Checks.MeshVersions do
  @moduledoc false
  # The nodes have different versions of this library, as during a rolling deploy.

  alias ExServiceMeshRouter.Doctor.Nodes

  def findings(%{nodes: %{said: said}}) do
    case Nodes.differences(said, & &1.library) do
      [] -> []
      groups -> [finding(groups)]
    end
  end

  def findings(_snapshot), do: []

  defp finding(groups) do
    versions =
      Enum.map_join(groups, "; ", fn {version, nodes} -> "#{version} on #{Nodes.names(nodes)}" end)

    %{
      problem: "the nodes have different versions of ex_service_mesh_router: #{versions}",
      why:
        "During a rolling deploy that is as it should be. Nodes whose versions are too different do not " <>
          "send each other requests.",
      file: "the projects of all nodes, then deploy them",
      fix: "mix deps.update ex_service_mesh_router"
    }
  end
end
