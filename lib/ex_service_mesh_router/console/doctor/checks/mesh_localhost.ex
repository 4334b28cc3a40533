defmodule ExServiceMeshRouter.Doctor.Checks.MeshLocalhost do
  @moduledoc false
  # Names below localhost mean each machine itself, so endpoints that have no others stay on their node.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix, Nodes}
  alias ExServiceMeshRouter.Endpoint.DevNames

  def findings(%{nodes: %{said: [_own, _other | _]}} = snapshot) do
    case Enum.filter(snapshot.endpoints, &only_here?/1) do
      [] -> []
      endpoints -> [finding(endpoints, snapshot)]
    end
  end

  def findings(_snapshot), do: []

  defp only_here?(it),
    do: it.state == :listening and it.running? and Enum.all?(it.hosts, &local?/1)

  defp local?(host), do: host == "localhost" or String.ends_with?(host, ".localhost")

  defp finding(endpoints, snapshot) do
    fixes =
      for it <- endpoints, do: Fix.endpoint(it, [url: [host: shared(it, snapshot)]], snapshot)

    %{
      problem:
        "other nodes do not get #{Nodes.names(Enum.map(endpoints, &Endpoint.name/1))}: every host is " <>
          "localhost or below it",
      why:
        "Such a name is each machine's own. A host that all nodes have needs DNS or /etc/hosts.",
      file: hd(fixes).file,
      fix: Enum.map_join(fixes, "\n", & &1.fix)
    }
  end

  # RFC 2606 reserves both domains.
  defp shared(it, snapshot) do
    domain = if snapshot.development?, do: ".test", else: ".example.com"
    DevNames.label(it.application, it.endpoint) <> domain
  end
end
