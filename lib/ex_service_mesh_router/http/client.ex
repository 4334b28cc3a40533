defmodule ExServiceMeshRouter.Http.Client do
  @moduledoc false
  # One GET at a gateway of this machine, for the Mix tasks.

  @timeout 5_000

  @doc "`{:ok, status, body}`, or `{:error, reason}`. `host` is that of the `Host` field."
  def get(ip, port, host, path, accept) do
    options = [:binary, active: false, packet: :http_bin, buffer: 65_536]

    with {:ok, socket} <- :gen_tcp.connect(ip, port, options, @timeout) do
      request = [
        "GET #{path} HTTP/1.0\r\nHost: #{host}\r\nAccept: #{accept}\r\n",
        "Connection: close\r\n\r\n"
      ]

      result = with :ok <- :gen_tcp.send(socket, request), do: response(socket)
      :gen_tcp.close(socket)
      result
    end
  end

  # To a client of HTTP/1.0 a body ends with its connection.
  defp response(socket) do
    with {:ok, {:http_response, _version, status, _reason}} <- :gen_tcp.recv(socket, 0, @timeout),
         :ok <- skip_fields(socket),
         :ok <- :inet.setopts(socket, packet: :raw),
         {:ok, body} <- rest(socket, []) do
      {:ok, status, body}
    else
      {:error, reason} -> {:error, reason}
      _other -> {:error, :no_http}
    end
  end

  defp skip_fields(socket) do
    case :gen_tcp.recv(socket, 0, @timeout) do
      {:ok, :http_eoh} -> :ok
      {:ok, {:http_header, _, _, _, _}} -> skip_fields(socket)
      {:ok, _other} -> {:error, :no_http}
      error -> error
    end
  end

  defp rest(socket, read) do
    case :gen_tcp.recv(socket, 0, @timeout) do
      {:ok, data} -> rest(socket, [read, data])
      {:error, :closed} -> {:ok, IO.iodata_to_binary(read)}
      error -> error
    end
  end
end
