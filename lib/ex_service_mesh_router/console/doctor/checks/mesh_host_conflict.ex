defmodule ExServiceMeshRouter.Doctor.Checks.MeshHostConflict do
  @moduledoc false
  # Different endpoints on different nodes have the same host. Without other nodes: HostConflict.

  alias ExServiceMeshRouter.Doctor.{Fix, Nodes}

  def findings(%{nodes: %{said: said}, conflicts: conflicts} = snapshot) do
    conflicts
    |> Enum.filter(fn {_host, winner, loser} -> remote?(winner) or remote?(loser) end)
    |> Enum.group_by(fn {_host, winner, loser} -> {winner, loser} end, &elem(&1, 0))
    |> Enum.sort()
    |> Enum.map(&finding(&1, said, snapshot))
  end

  def findings(_snapshot), do: []

  # The labels of the registry, see Service.label/1. Names of services have no spaces.
  defp remote?(label), do: String.contains?(label, " on ")

  defp finding({{winner, loser}, hosts}, said, snapshot) do
    loser_name = name(loser)

    %{
      problem: "#{Nodes.names(hosts)} belongs to both #{winner} and #{loser}",
      why:
        "Clients of this node get #{name(winner)}. Every node prefers its own endpoint, so what a client " <>
          "gets depends on the node."
    }
    |> Map.merge(fix(loser_name, application(loser_name, said), hd(hosts), snapshot))
  end

  defp name(label), do: label |> String.split(" ") |> hd()

  defp application(name, said) do
    said
    |> Enum.flat_map(& &1.endpoints)
    |> Enum.find_value(fn {endpoint, application} -> endpoint == name && application end)
  end

  # A configured service, whose host is its key.
  defp fix(name, nil, host, snapshot) do
    other = Fix.sibling("static-" <> hd(String.split(host, ".")), host)

    Fix.gateway([services: %{other => "http://127.0.0.1:9001"}], snapshot)
    |> Map.put(:file, "config/runtime.exs, in place of #{name}")
  end

  defp fix(name, application, host, _snapshot) do
    label = application |> String.replace_suffix("_web", "") |> String.replace("_", "-")
    label = if String.starts_with?(host, label <> "."), do: label <> "-2", else: label

    %{
      file: "config/runtime.exs, at its end, where #{name} runs",
      fix: "config :#{application}, #{name}, url: [host: #{inspect(Fix.sibling(label, host))}]"
    }
  end
end
