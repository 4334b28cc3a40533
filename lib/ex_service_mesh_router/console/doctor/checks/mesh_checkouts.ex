defmodule ExServiceMeshRouter.Doctor.Checks.MeshCheckouts do
  @moduledoc false
  # In development, two directories of one machine form a cluster with the same endpoints. That is usually
  # an accident: a page then comes from either of them.

  alias ExServiceMeshRouter.Doctor.{Fix, Nodes}

  def findings(%{development?: true, nodes: %{said: [own | others]}} = snapshot) do
    for other <- others,
        other.checks["directory"] != nil,
        other.checks["machine"] == own.checks["machine"],
        other.checks["directory"] != own.checks["directory"],
        names =
          for({name, _} <- other.endpoints, List.keymember?(own.endpoints, name, 0), do: name),
        names != [],
        do: finding(other, names, snapshot)
  end

  def findings(_snapshot), do: []

  defp finding(other, names, snapshot) do
    Map.merge(Fix.gateway([mesh: false], snapshot), %{
      problem:
        "#{other.node} runs in another directory of this machine (#{other.checks["directory"]}) and has " <>
          "the same endpoints: #{Nodes.names(names)}",
      why:
        "The gateways of both send each other requests, so a page may come from the other directory. " <>
          "Without the mesh, or with another cookie or other names of nodes, they do not."
    })
  end
end
