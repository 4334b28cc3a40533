defmodule ExServiceMeshRouter.Gateway.TrustedProxies do
  @moduledoc false
  # Keeps the `trusted_proxies` of all gateways of this VM. The plugs of endpoints read them on each
  # request to find the client in `X-Forwarded-For`, and cannot tell the gateways apart.

  alias ExServiceMeshRouter.Config.Network
  alias ExServiceMeshRouter.Gateway.Lock

  @doc "Returns the networks."
  def all, do: :persistent_term.get(__MODULE__, [])

  def add(cidrs) do
    networks = Enum.map(cidrs, &Network.parse!/1)

    # Under a lock: two gateways that start at the same time would overwrite each other's networks.
    Lock.run(__MODULE__, fn -> :persistent_term.put(__MODULE__, Enum.uniq(all() ++ networks)) end)
  end
end
