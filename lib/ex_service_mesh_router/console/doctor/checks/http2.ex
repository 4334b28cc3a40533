defmodule ExServiceMeshRouter.Doctor.Checks.Http2 do
  @moduledoc false
  # An endpoint that does not speak HTTP/2 gets none of the requests that the gateway sends to it. Only what
  # its settings say is known here; the log has what its server does.

  alias ExServiceMeshRouter.Doctor.Fix

  def findings(%{config: %{http2: wanted}} = snapshot) do
    for endpoint <- wanted, why = why(endpoint, snapshot) do
      Map.merge(Fix.gateway([http2: wanted -- [endpoint]], snapshot), %{
        problem: "`http2` names #{inspect(endpoint)}, which does not speak HTTP/2",
        why: why
      })
    end
  end

  defp why(endpoint, snapshot) do
    case Enum.find(snapshot.endpoints, &(&1.endpoint == endpoint)) do
      nil -> "The gateway finds no such endpoint."
      %{settings: settings} -> refusal(settings[:http])
    end
  end

  # Of Bandit, then of Cowboy.
  defp refusal(http) do
    protocols = nested(http, [:protocol_options, :protocols])

    cond do
      nested(http, [:http_2_options, :enabled]) == false ->
        refusal_by(http_2_options: [enabled: false])

      is_list(protocols) and :http2 not in protocols ->
        refusal_by(protocol_options: [protocols: protocols])

      true ->
        nil
    end
  end

  defp refusal_by(options),
    do: "With `http: #{inspect(options)}` it refuses HTTP/2, so its requests get a 502."

  defp nested(value, []), do: value

  defp nested(list, [key | keys]) when is_list(list) do
    case List.keyfind(list, key, 0) do
      {^key, value} -> nested(value, keys)
      _ -> nil
    end
  end

  defp nested(_other, _keys), do: nil
end
