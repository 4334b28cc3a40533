defmodule ExServiceMeshRouter.Http.Client do
  @moduledoc false
  # One request to a gateway of this machine, for the Mix tasks and for tests.

  @timeout 5_000

  @doc "`{:ok, status, body}`, or `{:error, reason}`. `host` is that of the `Host` field."
  def get(ip, port, host, path, accept) do
    with {:ok, status, _fields, body} <-
           request(ip, port, "GET", path, [{"host", host}, {"accept", accept}]),
         do: {:ok, status, body}
  end

  @doc "`{:ok, status, fields, body}`, the names of the fields in lower case."
  def request(ip, port, method, path, fields, body \\ "") do
    options = [:binary, active: false, packet: :http_bin, buffer: 65_536]

    with {:ok, socket} <- :gen_tcp.connect(ip, port, options, @timeout) do
      head = [
        "#{method} #{path} HTTP/1.0\r\n",
        for({name, value} <- fields, do: [name, ": ", value, "\r\n"]),
        if(body == "", do: [], else: "content-length: #{IO.iodata_length(body)}\r\n"),
        "connection: close\r\n\r\n"
      ]

      result = with :ok <- :gen_tcp.send(socket, [head, body]), do: response(socket)
      :gen_tcp.close(socket)
      result
    end
  end

  # To a client of HTTP/1.0 a body ends with its connection.
  defp response(socket) do
    with {:ok, {:http_response, _version, status, _reason}} <- :gen_tcp.recv(socket, 0, @timeout),
         {:ok, fields} <- fields(socket, []),
         :ok <- :inet.setopts(socket, packet: :raw),
         {:ok, body} <- rest(socket, []) do
      {:ok, status, fields, body}
    else
      {:error, reason} -> {:error, reason}
      _other -> {:error, :no_http}
    end
  end

  defp fields(socket, read) do
    case :gen_tcp.recv(socket, 0, @timeout) do
      {:ok, :http_eoh} ->
        {:ok, Enum.reverse(read)}

      {:ok, {:http_header, _, name, _, value}} ->
        fields(socket, [{name |> to_string() |> String.downcase(), value} | read])

      {:ok, _other} ->
        {:error, :no_http}

      error ->
        error
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
