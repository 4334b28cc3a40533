defmodule ExServiceMeshRouter.Doctor.Checks.MeshUnreachable do
  @moduledoc false
  # Erlang distribution reaches a node, and the data plane does not.

  alias ExServiceMeshRouter.Doctor.{Fix, Nodes}

  # A port that is not the one of distribution, of epmd or of Phoenix.
  @port 4600

  def findings(%{nodes: %{status: %{nodes: nodes}}} = snapshot) do
    case Enum.filter(nodes, &(&1.state == :unreachable)) do
      [] -> []
      nodes -> [finding(nodes, snapshot)]
    end
  end

  def findings(_snapshot), do: []

  defp finding(nodes, snapshot) do
    names = for node <- nodes, do: "#{node.node} at #{node.address || "no address"}"
    port = if snapshot.config.mesh.port == 0, do: @port, else: snapshot.config.mesh.port

    %{
      problem: "the gateway cannot connect to that of #{Nodes.names(names)} (#{hd(nodes).error})",
      why:
        "Erlang distribution does. Check that a firewall allows the port, and that the address leads to " <>
          "that node; if not, set `advertise: \"HOST:PORT\"` there. Requests go to other nodes that have " <>
          "its endpoints, or get a 502."
    }
    |> Map.merge(Fix.gateway([mesh: [port: port]], snapshot))
    |> Map.update!(:file, &(&1 <> ", on each node"))
  end
end
