defmodule ExServiceMeshRouter.Application do
  @moduledoc false
  # Validates the configuration and starts the gateway if this system listens.

  use Application

  alias ExServiceMeshRouter.{Config, Doctor}

  @impl true
  def start(_type, _arguments) do
    options =
      Application.get_all_env(:ex_service_mesh_router) |> Keyword.delete(:included_applications)

    with {:ok, _config} <- Config.new(options) do
      if Config.server?(options) do
        start_gateway(options)
      else
        # Without a gateway, the doctor has findings for releases only, and it reads all modules.
        if Doctor.Snapshot.release?(), do: Doctor.Startup.unserved(options)
        Supervisor.start_link([], strategy: :one_for_one)
      end
    end
    |> explain()
  end

  # Below a supervisor, which restarts a gateway that has lost its data plane.
  defp start_gateway(options) do
    children = [{ExServiceMeshRouter.Supervisor, options}]

    with {:error, {:shutdown, {:failed_to_start_child, _gateway, reason}}} <-
           Supervisor.start_link(children, strategy: :one_for_one),
         do: {:error, reason}
  end

  # Mix and OTP print the message of an exception only if it comes with a stack trace.
  defp explain({:error, %_{__exception__: true} = error}),
    do: {:error, {error, [{__MODULE__, :start, 2, []}]}}

  defp explain(result), do: result
end
