defmodule ExServiceMeshRouter.Doctor.Checks.MeshDown do
  @moduledoc false
  # `mesh` is configured, but the gateway cannot use it: the node has no name, or the port is taken.

  alias ExServiceMeshRouter.Doctor.Fix

  def findings(%{nodes: %{status: %{state: :not_distributed}}} = snapshot) do
    [
      Map.merge(name(snapshot), %{
        problem: "`mesh` is configured, but this node is not distributed",
        why: "The gateway serves only its own endpoints until the node has a name."
      })
    ]
  end

  def findings(%{nodes: %{status: %{state: :not_listening} = status}} = snapshot) do
    [
      Map.merge(Fix.gateway([mesh: free(snapshot.config.mesh)], snapshot), %{
        problem: "the gateway cannot listen for other nodes at #{status.problem}",
        why: "It serves only its own endpoints, and other nodes do not have them."
      })
    ]
  end

  def findings(_snapshot), do: []

  defp name(%{release?: true}) do
    %{
      file: "rel/env.sh.eex",
      fix:
        "export RELEASE_DISTRIBUTION=name\n" <>
          "export RELEASE_NODE=$RELEASE_NAME@$(hostname -i | cut -d ' ' -f 1)"
    }
  end

  defp name(_snapshot),
    do: %{file: "the command that starts the system", fix: "iex --sname a -S mix phx.server"}

  # A port of the configuration is taken, or an address is not of this machine.
  defp free(%{port: 0}), do: [ip: :any]
  defp free(%{port: port}), do: [port: if(port < 65_535, do: port + 1, else: port - 1)]
end
