defmodule ExServiceMeshRouter.PrivateListeners.Address do
  @moduledoc false
  # The address that an endpoint's `http:` asks for, and whether two cannot be had at once.

  alias ExServiceMeshRouter.EndpointSettings

  @any4 {0, 0, 0, 0}
  @any6 {0, 0, 0, 0, 0, 0, 0, 0}

  @doc "`{ip, port}`, or `nil` for what takes no port from anybody: none, a Unix socket, port 0."
  def of(http) do
    case EndpointSettings.listener(http) do
      {:tcp, ip, port} when port > 0 -> {ip, port}
      _other -> nil
    end
  end

  @doc "Whether these two cannot be listened on at the same time."
  def overlap?(nil, _other), do: false
  def overlap?(_one, nil), do: false
  def overlap?({_, port}, {_, other}) when port != other, do: false
  def overlap?({ip, _}, {ip, _}), do: true
  # Erlang's sockets on `::` take IPv4 as well.
  def overlap?({one, _}, {other, _}) when @any6 in [one, other], do: true
  def overlap?({one, _}, {other, _}) when tuple_size(one) != tuple_size(other), do: false
  def overlap?({one, _}, {other, _}), do: @any4 in [one, other]
end
