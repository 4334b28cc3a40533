defmodule ExServiceMeshRouter.Doctor.Checks.PortTaken do
  @moduledoc false
  # Another process has the gateway's port.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix}

  def findings(%{running?: false, holder: %{} = holder, port: port} = snapshot) do
    [
      Map.merge(Fix.gateway([port: free(snapshot)], snapshot), %{
        problem: "port #{port} is in use by #{words(holder)}",
        why: "The gateway and the applications that depend on it would not start."
      })
    ]
  end

  def findings(_snapshot), do: []

  defp words(%{pid: nil}), do: "a process of another user"
  defp words(%{pid: pid, command: command}), do: "process #{pid} (#{command})"

  defp free(%{port: port} = snapshot) do
    taken = Enum.map(snapshot.endpoints, &Endpoint.http_port/1)

    Enum.find(
      (port + 1)..65_535,
      &(&1 not in taken and ExServiceMeshRouter.Gateway.PortUse.free?(snapshot.config, &1))
    )
  end
end
