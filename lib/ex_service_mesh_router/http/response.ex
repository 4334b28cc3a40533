defmodule ExServiceMeshRouter.Http.Response do
  @moduledoc false
  # Writes a response, which is one of
  #
  #     {status, headers, body}               # iodata, sent with its length
  #     {status, headers, {:stream, pieces}}  # an enumerable; each piece is sent when it is there
  #     {:upgrade, headers, fun}              # 101; then fun.(socket) has the connection

  alias ExServiceMeshRouter.Http.Wire

  @reasons %{
    101 => "Switching Protocols",
    200 => "OK",
    400 => "Bad Request",
    403 => "Forbidden",
    404 => "Not Found",
    405 => "Method Not Allowed",
    426 => "Upgrade Required",
    431 => "Request Header Fields Too Large",
    500 => "Internal Server Error",
    501 => "Not Implemented",
    503 => "Service Unavailable",
    505 => "HTTP Version Not Supported"
  }

  @doc "A response that says nothing but its status."
  def of_status(status),
    do: {status, [{"content-type", "text/plain; charset=utf-8"}], [reason(status), "\n"]}

  @doc "Writes the response to a request; `keep_alive?` says whether another may follow."
  def write({:upgrade, headers, fun}, request, _keep_alive?) do
    Wire.send!(request.socket, head(101, headers))
    fun.(request.socket)
  end

  # Without chunks, in HTTP/1.0, the body ends with the connection.
  def write({status, headers, {:stream, pieces}}, request, keep_alive?) do
    chunked? = request.version == {1, 1}
    coding = if chunked?, do: [{"transfer-encoding", "chunked"}], else: []
    Wire.send!(request.socket, head(status, headers ++ coding ++ connection(keep_alive?)))

    unless request.method == "HEAD" do
      Enum.each(pieces, &Wire.send!(request.socket, if(chunked?, do: chunk(&1), else: &1)))
      if chunked?, do: Wire.send!(request.socket, "0\r\n\r\n")
    end
  end

  def write({status, headers, body}, request, keep_alive?) do
    length = [{"content-length", body |> IO.iodata_length() |> Integer.to_string()}]
    head = head(status, headers ++ length ++ connection(keep_alive?))
    Wire.send!(request.socket, if(request.method == "HEAD", do: head, else: [head, body]))
  end

  defp head(status, headers) do
    date = Calendar.strftime(DateTime.utc_now(), "%a, %d %b %Y %H:%M:%S GMT")
    Wire.format("HTTP/1.1 #{status} #{reason(status)}", [{"date", date} | headers])
  end

  defp reason(status), do: Map.get(@reasons, status, "")

  defp connection(keep_alive?), do: if(keep_alive?, do: [], else: [{"connection", "close"}])

  # An empty chunk would be the last one.
  defp chunk(piece) do
    case IO.iodata_length(piece) do
      0 -> []
      length -> [Integer.to_string(length, 16), "\r\n", piece, "\r\n"]
    end
  end
end
