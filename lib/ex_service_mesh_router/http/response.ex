defmodule ExServiceMeshRouter.Http.Response do
  @moduledoc false
  # An answer is `{status, headers, body}`. The body is iodata, or `{:stream, fun}`: the function is
  # given another one that sends a piece and returns `:ok`, or `:closed` once nobody is left to read,
  # and streams until it returns.

  @reasons %{
    200 => "OK",
    400 => "Bad Request",
    403 => "Forbidden",
    404 => "Not Found",
    405 => "Method Not Allowed",
    431 => "Request Header Fields Too Large",
    500 => "Internal Server Error",
    503 => "Service Unavailable"
  }

  @doc "The reason phrase of a status."
  def reason(status), do: Map.get(@reasons, status, "Unknown")

  @doc "Writes the answer to a request of this method."
  def write(socket, {status, headers, {:stream, stream}}, method) do
    _ = send_or_close(socket, [head(status, headers), "transfer-encoding: chunked\r\n\r\n"])

    unless method == "HEAD" do
      stream.(&chunk(socket, &1))
      _ = :gen_tcp.send(socket, "0\r\n\r\n")
    end

    :ok
  end

  def write(socket, {status, headers, body}, method) do
    length = ["content-length: ", body |> IO.iodata_length() |> Integer.to_string(), "\r\n\r\n"]

    send_or_close(socket, [
      head(status, headers),
      length,
      if(method == "HEAD", do: [], else: body)
    ])
  end

  defp head(status, headers) do
    fields = for {name, value} <- headers, do: [name, ": ", value, "\r\n"]
    ["HTTP/1.1 #{status} #{reason(status)}\r\n", fields, "connection: close\r\n"]
  end

  # An empty chunk would be the last one.
  defp chunk(socket, data) do
    case IO.iodata_length(data) do
      0 -> :ok
      size -> send_or_close(socket, [Integer.to_string(size, 16), "\r\n", data, "\r\n"])
    end
  end

  defp send_or_close(socket, data) do
    case :gen_tcp.send(socket, data) do
      :ok -> :ok
      {:error, _gone} -> :closed
    end
  end
end
