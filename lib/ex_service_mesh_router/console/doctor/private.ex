defmodule ExServiceMeshRouter.Doctor.Private do
  @moduledoc false
  # Predicts from the settings of an endpoint whether the gateway listens in its place.

  alias ExServiceMeshRouter.Endpoint.Settings
  alias ExServiceMeshRouter.Listeners.Policy

  @doc "Returns whether an endpoint gets a private listener, regardless of conflicts."
  def listener?(it, %{config: %{private_listeners: mode}}),
    do: Policy.private?(mode, it.endpoint, it.serves? == true, it.settings[:http])

  @doc "Returns whether the gateway listens in place of the endpoint's `http:`."
  def taken?(it, %{running?: true}), do: it.taken?

  def taken?(it, %{config: %{private_listeners: mode}} = snapshot) do
    Policy.always?(mode, it.endpoint) or
      (Policy.instead?(mode, it.endpoint) and
         (gateways_port?(it, snapshot) or another_ones?(it, snapshot)))
  end

  @doc "Returns whether the endpoint's address is in conflict with the gateway's."
  def gateways_port?(it, %{config: %{ips: ips}, port: port}) do
    address = address(it)

    port != 0 and
      Enum.any?(ips, &Settings.overlap?({&1, port}, address))
  end

  defp another_ones?(it, snapshot) do
    address = address(it)

    Enum.any?(snapshot.endpoints, fn other ->
      other.endpoint != it.endpoint and Settings.overlap?(address(other), address)
    end)
  end

  defp address(%{serves?: true} = it), do: Settings.address(it.settings[:http])
  defp address(_it), do: nil

  @doc "Returns whether the gateway will set the port of this endpoint's links."
  def port?(_it, %{running?: true}), do: false

  def port?(it, snapshot) do
    Settings.links(it.settings).explicit? == false and
      (taken?(it, snapshot) or (snapshot.development? and listener?(it, snapshot)))
  end

  @doc """
  Returns whether the gateway will set the host of this endpoint's links. In a running system it is
  already set.
  """
  def links?(it, %{running?: false, development?: true} = snapshot) do
    is_binary(Settings.url(it.settings)[:host]) and
      (listener?(it, snapshot) or taken?(it, snapshot))
  end

  def links?(_it, _snapshot), do: false
end
