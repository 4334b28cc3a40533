defmodule ExServiceMeshRouter.Doctor.Private do
  @moduledoc false
  # Which endpoints the gateway listens for, or will, as far as their settings tell.

  alias ExServiceMeshRouter.Doctor.Endpoint
  alias ExServiceMeshRouter.PrivateListeners.Policy

  @doc "Whether an endpoint gets a private listener for want of an `http:`."
  def listener?(it, %{config: %{private_listeners: mode}}),
    do: Policy.private?(mode, it.endpoint, it.serves? == true, it.settings[:http])

  @doc """
  Whether the gateway, once it starts, sees to it that the links of this endpoint have a host that
  reaches it. In a system that runs it has done so, or could not.
  """
  def links?(it, %{running?: false, development?: true} = snapshot) do
    is_binary(Endpoint.url(it.settings[:url])[:host]) and
      (listener?(it, snapshot) or
         (Policy.instead?(snapshot.config.private_listeners, it.endpoint) and
            contended?(it, snapshot)))
  end

  def links?(_it, _snapshot), do: false

  # A port that the gateway has, or another endpoint, is nobody's.
  defp contended?(it, snapshot) do
    others = for other <- snapshot.endpoints, other != it, do: Endpoint.http_port(other)
    Endpoint.http_port(it) in [snapshot.port | others]
  end
end
