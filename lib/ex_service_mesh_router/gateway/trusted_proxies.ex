defmodule ExServiceMeshRouter.Gateway.TrustedProxies do
  @moduledoc false
  # The `trusted_proxies` of all gateways of this VM together: their additions to `X-Forwarded-For` are
  # not clients'. Plugs of endpoints read them for each request, and cannot tell the gateways apart.

  alias ExServiceMeshRouter.Config.Network
  alias ExServiceMeshRouter.Gateway.Lock

  @doc "The networks."
  def all, do: :persistent_term.get(__MODULE__, [])

  def add(cidrs) do
    networks = Enum.map(cidrs, &Network.parse!/1)

    # One at a time: of two gateways that start at once, one would forget what the other has added.
    Lock.run(__MODULE__, fn -> :persistent_term.put(__MODULE__, Enum.uniq(all() ++ networks)) end)
  end
end
