defmodule ExServiceMeshRouter.Doctor.Checks.ServerMissing do
  @moduledoc false
  # In a release, the gateway and each endpoint need `server: true`. An explicit `server: false` is
  # respected, and so are endpoints that other nodes serve.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix}

  def findings(%{release?: true, server?: false} = snapshot) do
    if Enum.any?(snapshot.endpoints, & &1.serves?) do
      [
        Map.merge(Fix.gateway([server: true], snapshot), %{
          problem: "endpoints listen, but the gateway does not",
          why: "In a release, it needs `server: true`."
        })
      ]
    else
      []
    end
  end

  def findings(%{release?: true} = snapshot) do
    for %{serves?: nil} = it <- snapshot.endpoints, not served?(it, snapshot) do
      Map.merge(Fix.endpoint(it, [server: true], snapshot), %{
        problem: "#{Endpoint.name(it)} does not listen",
        why: "In a release, it needs `server: true`; requests for it get a 503."
      })
    end
  end

  def findings(_snapshot), do: []

  # A configuration does not tell.
  defp served?(it, snapshot), do: snapshot.running? and it.state == :listening
end
