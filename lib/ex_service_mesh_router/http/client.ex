defmodule ExServiceMeshRouter.Http.Client do
  @moduledoc false
  # Sends single requests to a gateway on this machine, for the Mix tasks and tests.

  alias ExServiceMeshRouter.Http.Wire

  @timeout 5_000

  @doc "Sends a GET request. Returns `{:ok, status, body}` or `{:error, reason}`."
  def get(ip, port, host, path, accept) do
    with {:ok, status, _fields, body} <-
           request(ip, port, "GET", path, [{"host", host}, {"accept", accept}]),
         do: {:ok, status, body}
  end

  @doc """
  Sends a request. Returns `{:ok, status, fields, body}`, the field names in lower case, or `{:error,
  reason}`.
  """
  def request(ip, port, method, path, fields, body \\ "") do
    with {:ok, socket} <- :gen_tcp.connect(ip, port, Wire.socket_options(), @timeout) do
      try do
        length = for size <- [IO.iodata_length(body)], size > 0, do: {"content-length", "#{size}"}
        fields = fields ++ length ++ [{"connection", "close"}]
        # In HTTP/1.0, the body ends with the connection.
        Wire.send_head(socket, "#{method} #{path} HTTP/1.0", fields, body)
        response(Wire.head(socket, @timeout), socket)
      catch
        {:closed, reason} -> {:error, reason}
        {:refuse, _status} -> {:error, :malformed}
      after
        :gen_tcp.close(socket)
      end
    end
  end

  defp response({{:http_response, _version, status, _reason}, fields}, socket) do
    with :ok <- :inet.setopts(socket, packet: :raw),
         {:ok, body} <- rest(socket, []),
         do: {:ok, status, fields, body}
  end

  defp response(_request, _socket), do: {:error, :malformed}

  defp rest(socket, read) do
    case :gen_tcp.recv(socket, 0, @timeout) do
      {:ok, data} -> rest(socket, [read, data])
      {:error, :closed} -> {:ok, IO.iodata_to_binary(read)}
      error -> error
    end
  end
end
