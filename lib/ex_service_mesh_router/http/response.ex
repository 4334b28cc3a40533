defmodule ExServiceMeshRouter.Http.Response do
  @moduledoc false
  # Writes a response, which is one of
  #
  #     {status, headers, body}               # iodata, sent with its length
  #     {status, headers, {:stream, pieces}}  # an enumerable; each piece is sent at once
  #     {:upgrade, headers, fun}              # 101; then fun.(socket) owns the connection

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

  @doc "Returns a response with the status as its body."
  def of_status(status),
    do: {status, [{"content-type", "text/plain; charset=utf-8"}], [@reasons[status], "\n"]}

  @doc "Writes the response to a request, with additional headers."
  def write({:upgrade, headers, fun}, request, _added) do
    head(request, 101, headers)
    fun.(request.socket)
  end

  # HTTP/1.0 has no chunks: the body ends with the connection.
  def write({status, headers, {:stream, pieces}}, request, added) do
    chunked? = request.version == {1, 1}
    coding = if chunked?, do: [{"transfer-encoding", "chunked"}], else: []
    head(request, status, headers ++ coding ++ added)

    unless request.method == "HEAD" do
      Enum.each(pieces, &Wire.send!(request.socket, if(chunked?, do: chunk(&1), else: &1)))
      if chunked?, do: Wire.send!(request.socket, "0\r\n\r\n")
    end
  end

  def write({status, headers, body}, request, added) do
    length = {"content-length", "#{IO.iodata_length(body)}"}

    head(
      request,
      status,
      headers ++ [length | added],
      if(request.method == "HEAD", do: [], else: body)
    )
  end

  defp head(request, status, headers, body \\ []) do
    date = Calendar.strftime(DateTime.utc_now(), "%a, %d %b %Y %H:%M:%S GMT")
    line = "HTTP/1.1 #{status} #{@reasons[status]}"
    Wire.send_head(request.socket, line, [{"date", date} | headers], body)
  end

  # An empty chunk would end the body.
  defp chunk(piece) do
    case IO.iodata_length(piece) do
      0 -> []
      length -> [Integer.to_string(length, 16), "\r\n", piece, "\r\n"]
    end
  end
end
