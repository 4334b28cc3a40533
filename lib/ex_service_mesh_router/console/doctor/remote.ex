defmodule ExServiceMeshRouter.Doctor.Remote do
  @moduledoc false
  # Asks the process that has the gateway's port: a running gateway, which knows more than its
  # configuration, or another program.

  alias ExServiceMeshRouter.Json
  alias ExServiceMeshRouter.Doctor.Finding
  alias ExServiceMeshRouter.Gateway.PortUse
  alias ExServiceMeshRouter.Http.Client
  alias ExServiceMeshRouter.Registry.IndexRow

  @doc """
  Returns `{:running, findings, snapshot}` if a gateway answers, otherwise `{:configured, snapshot}` with
  the process that has its port in `holder`.
  """
  def ask(%{port: port, config: config} = snapshot) do
    if port == 0 or PortUse.free?(config, port),
      do: {:configured, snapshot},
      else: config |> address() |> get(port) |> answer(snapshot)
  end

  @doc "Returns the index report of the gateway on this machine with this configuration, or `:error`."
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

  @doc "Returns an address of a gateway with this configuration."
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

      # The gateway runs without an index.
      {404, {:ok, %{"reason" => "unknown service: " <> _}}} ->
        {:configured, snapshot}

      _ ->
        answer({:error, :another}, snapshot)
    end
  end

  defp answer({:error, _reason}, snapshot),
    do: {:configured, %{snapshot | holder: PortUse.holder(snapshot.port)}}
end
