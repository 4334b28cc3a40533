defmodule ExServiceMeshRouter.Doctor.Remote do
  @moduledoc false
  # Asks whoever has the gateway's port: our own gateway, which knows more than its configuration
  # says, or somebody who should not be there.

  alias ExServiceMeshRouter.Json
  alias ExServiceMeshRouter.Doctor.Finding
  alias ExServiceMeshRouter.Gateway.PortUse
  alias ExServiceMeshRouter.Http.Client
  alias ExServiceMeshRouter.Registry.IndexRow

  @doc """
  `{:running, findings, snapshot}` if the gateway answers, `{:configured, snapshot}` if not, with
  whoever has its port.
  """
  def ask(%{port: port, config: config} = snapshot) do
    if port == 0 or PortUse.free?(config, port),
      do: {:configured, snapshot},
      else: config |> address() |> get(port) |> answer(snapshot)
  end

  @doc "What a gateway that runs on this machine with this configuration says of itself, or `:error`."
  def report(%{port: 0}), do: :error

  def report(config) do
    with {:ok, 200, body} <- config |> address() |> get(config.port),
         {:ok, %{"gateway" => %{"software" => "ex_service_mesh_router"}} = report} <-
           Json.decode(body) do
      {:ok, report}
    else
      _ -> :error
    end
  end

  @doc "The address at which a gateway of this configuration is asked."
  def address(config) do
    case hd(config.ips) do
      {0, 0, 0, 0} -> {127, 0, 0, 1}
      {0, 0, 0, 0, 0, 0, 0, 0} -> {0, 0, 0, 0, 0, 0, 0, 1}
      ip -> ip
    end
  end

  defp get(ip, port), do: Client.get(ip, port, IndexRow.anchor(), "/", "application/json")

  defp answer({:ok, status, body}, snapshot) do
    case {status, Json.decode(body)} do
      {200, {:ok, %{"gateway" => %{"software" => "ex_service_mesh_router"}} = report}} ->
        {:running, Enum.map(report["findings"], &Finding.from_map/1), snapshot}

      # It runs without an index, or one of its services has taken the request.
      {404, {:ok, %{"reason" => "unknown service: " <> _}}} ->
        {:configured, snapshot}

      _ ->
        answer({:error, :another}, snapshot)
    end
  end

  defp answer({:error, _reason}, snapshot),
    do: {:configured, %{snapshot | holder: PortUse.holder(snapshot.port)}}
end
