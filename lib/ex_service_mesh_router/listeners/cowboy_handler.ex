defmodule ExServiceMeshRouter.Listeners.CowboyHandler do
  @moduledoc false
  # A stream handler of Cowboy (`cowboy_stream`) that runs before all others and sets the addresses of
  # the client in the request, for them, for telemetry and for the endpoint.

  alias ExServiceMeshRouter.RemoteIp
  alias ExServiceMeshRouter.Plugs.ForwardedReader

  @next :cowboy_stream

  def init(stream, req, options), do: apply(@next, :init, [stream, restore(req), options])
  def data(stream, fin, data, next), do: apply(@next, :data, [stream, fin, data, next])
  def info(stream, info, next), do: apply(@next, :info, [stream, info, next])
  def terminate(stream, reason, next), do: apply(@next, :terminate, [stream, reason, next])

  def early_error(stream, reason, request, response, options),
    do: apply(@next, :early_error, [stream, reason, request, response, options])

  defp restore(%{peer: {address, port}} = req) do
    if RemoteIp.own?(%{address: address, port: port}) do
      {gateway, _port} = RemoteIp.gateway()
      headers = Map.to_list(req.headers)

      req
      |> Map.merge(%{
        peer: {ForwardedReader.client(headers) || gateway, 0},
        sock: RemoteIp.gateway()
      })
      |> put(
        :scheme,
        with(scheme when scheme != nil <- ForwardedReader.scheme(headers), do: "#{scheme}")
      )
      |> put(:host, ForwardedReader.host(headers))
      |> put(:port, ForwardedReader.port(headers))
    else
      req
    end
  end

  defp put(req, _key, nil), do: req
  defp put(req, key, value), do: Map.put(req, key, value)
end
