defmodule ExServiceMeshRouter.Doctor.Checks.MeshSettings do
  @moduledoc false
  # The replicas of an endpoint have different secrets or PubSub servers, so a session or a long poll of
  # one node fails on another.

  alias ExServiceMeshRouter.Doctor.Nodes
  alias ExServiceMeshRouter.Mesh.Checks

  @settings [
    secret_key_base:
      "Sessions, LiveViews and long polls that begin on one node fail on the others.",
    pubsub_server: "Broadcasts and long polls do not get from one node to the others."
  ]

  def findings(%{nodes: %{said: said}}) do
    endpoints = said |> Enum.flat_map(& &1.endpoints) |> Enum.uniq_by(&elem(&1, 0)) |> Enum.sort()

    for {endpoint, application} <- endpoints,
        {setting, why} <- @settings,
        groups = Nodes.differences(said, & &1.checks[Checks.key(setting, endpoint)]),
        groups != [],
        do: finding(endpoint, application, setting, why, groups)
  end

  def findings(_snapshot), do: []

  defp finding(endpoint, application, setting, why, groups) do
    %{
      problem:
        "#{endpoint} has not the same `#{setting}` on each node: #{where(setting, groups)}",
      why: why,
      file: "config/runtime.exs, at its end, on each node",
      fix: "config :#{application}, #{endpoint}, #{setting}: #{value(setting, endpoint, groups)}"
    }
  end

  # The name of a PubSub server is no secret.
  defp where(:pubsub_server, groups),
    do: Enum.map_join(groups, "; ", fn {name, nodes} -> "#{name} on #{Nodes.names(nodes)}" end)

  defp where(:secret_key_base, groups) do
    texts = for {_digest, nodes} <- groups, do: "on #{Nodes.names(nodes)}"
    "one " <> Enum.join(texts, "; another ")
  end

  # The value that most nodes have.
  defp value(:pubsub_server, _endpoint, groups),
    do: groups |> Enum.max_by(fn {_name, nodes} -> length(nodes) end) |> elem(0)

  defp value(:secret_key_base, _endpoint, _groups),
    do: ~s|System.fetch_env!("SECRET_KEY_BASE")|
end
