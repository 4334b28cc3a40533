defmodule ExServiceMeshRouter.Doctor.Checks.InVm do
  @moduledoc false
  # An endpoint that `in_vm` names is expected to be fast. With `:auto`, an endpoint that needs its socket
  # is no mistake.

  alias ExServiceMeshRouter.Doctor.Fix

  def findings(%{config: %{in_vm: [_ | _] = wanted}} = snapshot) do
    for endpoint <- wanted, why = why(endpoint, snapshot) do
      rest = wanted -- [endpoint]

      Map.merge(Fix.gateway([in_vm: if(rest == [], do: false, else: rest)], snapshot), %{
        problem: "`in_vm` names #{inspect(endpoint)}, which is not served in the VM",
        why: "Its requests use a socket: #{why}."
      })
    end
  end

  def findings(_snapshot), do: []

  defp why(endpoint, snapshot) do
    case Enum.find(snapshot.services, &(&1.key == {:endpoint, endpoint})) do
      nil -> "the gateway finds no such endpoint"
      %{in_vm: why} when is_binary(why) -> why
      _service -> nil
    end
  end
end
