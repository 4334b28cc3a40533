defmodule ExServiceMeshRouter.Doctor.Fix do
  @moduledoc false
  # The lines that mend, as one writes them: `config :auth_web, AuthWeb.Endpoint, url: [port: 4000]`.
  # Keyword lists of several such lines are merged by Mix, so a line says only what changes.

  @doc "Settings of an endpoint."
  def endpoint(%{application: application, endpoint: endpoint}, settings),
    do: "config #{inspect(application)}, #{inspect(endpoint)}, #{bare(settings)}"

  @doc "Settings of the gateway."
  def gateway(settings), do: "config :ex_service_mesh_router, #{bare(settings)}"

  @doc "The file that configures what this system is."
  def file(%{development?: true}), do: "config/dev.exs"
  def file(_snapshot), do: "config/runtime.exs"

  defp bare(settings) do
    settings |> inspect(limit: :infinity, printable_limit: :infinity) |> String.slice(1..-2//1)
  end
end
