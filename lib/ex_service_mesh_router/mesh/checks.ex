defmodule ExServiceMeshRouter.Mesh.Checks do
  @moduledoc false
  # Makes the texts of a hello by which the doctor finds differences between nodes. The keys are
  #
  #   * `secret_key_base ENDPOINT` - a digest of the secret. It is keyed with the secret itself, so it says
  #     only whether two nodes have the same one for the same endpoint
  #   * `pubsub_server ENDPOINT` - its name
  #   * `directory`, `machine` - where the system runs, in development only

  alias ExServiceMeshRouter.Config.Environment
  alias ExServiceMeshRouter.Endpoint.Settings

  @digest 16

  @doc "Returns the checks of these services."
  def own(services, development? \\ Environment.development?()) do
    for(service <- services, check <- endpoint(service.endpoint, service.application), do: check)
    |> Map.new()
    |> Map.merge(if development?, do: place(), else: %{})
  end

  @doc "Returns the key of a check of an endpoint, by its name."
  def key(setting, endpoint), do: "#{setting} #{endpoint}"

  defp endpoint(endpoint, application) do
    name = inspect(endpoint)

    for {setting, value} <-
          Settings.read(endpoint, application, [:secret_key_base, :pubsub_server]),
        text = text(setting, value, name),
        do: {key(setting, name), text}
  end

  defp text(:secret_key_base, secret, name) when is_binary(secret) do
    :crypto.mac(:hmac, :sha256, secret, "exmesh " <> name)
    |> binary_part(0, @digest)
    |> Base.encode16(case: :lower)
  end

  defp text(:pubsub_server, server, _name) when is_atom(server) and server != nil,
    do: inspect(server)

  defp text(_setting, _other, _name), do: nil

  defp place do
    {:ok, machine} = :inet.gethostname()

    case File.cwd() do
      {:ok, directory} -> %{"directory" => directory, "machine" => List.to_string(machine)}
      _ -> %{}
    end
  end
end
