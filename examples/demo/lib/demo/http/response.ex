defmodule Demo.HTTP.Response do
  @moduledoc "Answers, and how they are written."

  alias Demo.HTTP.{Closed, Request}

  @typedoc """
  What a handler answers with:

    * `{status, headers, body}` - the body goes out with its length;
    * `{status, headers, {:stream, pieces}}` - each piece goes out as soon as it is there;
    * `{:upgrade, headers, fun}` - `101 Switching Protocols`, after which the function has the
      connection (`Demo.HTTP.Reader`) for itself, until it returns.
  """
  @type t ::
          {status :: 200..599, headers(), iodata()}
          | {status :: 200..599, headers(), {:stream, Enumerable.t()}}
          | {:upgrade, headers(), (Demo.HTTP.Reader.t() -> any())}

  @type headers :: [{String.t(), String.t()}]

  @reasons %{
    101 => "Switching Protocols",
    200 => "OK",
    204 => "No Content",
    304 => "Not Modified",
    400 => "Bad Request",
    404 => "Not Found",
    405 => "Method Not Allowed",
    426 => "Upgrade Required",
    431 => "Request Header Fields Too Large",
    500 => "Internal Server Error",
    501 => "Not Implemented",
    505 => "HTTP Version Not Supported"
  }

  @doc "Writes an answer to a request. Says whether the connection can carry another one."
  @spec write(t(), Request.t(), keep_alive? :: boolean()) :: :keep_alive | :close
  def write({:upgrade, headers, fun}, request, _keep_alive?) do
    send!(request.reader.socket, head(101, headers))
    # What is spoken from here on has its own idea of silence.
    fun.(%{request.reader | timeout: :infinity})
    :close
  end

  def write({status, headers, {:stream, pieces}}, request, keep_alive?) do
    socket = request.reader.socket
    chunked? = request.version == {1, 1}
    # Without chunks only the end of the connection tells the end of the body.
    keep_alive? = keep_alive? and chunked?
    coding = if chunked?, do: [{"transfer-encoding", "chunked"}], else: []
    send!(socket, head(status, headers ++ coding ++ connection(keep_alive?)))

    unless request.method == "HEAD" do
      Enum.each(pieces, &send!(socket, if(chunked?, do: chunk(&1), else: &1)))
      if chunked?, do: send!(socket, "0\r\n\r\n")
    end

    after_answer(keep_alive?)
  end

  def write({status, headers, body}, request, keep_alive?) do
    bodiless? = status in [204, 304]
    length = if bodiless?, do: [], else: [{"content-length", "#{IO.iodata_length(body)}"}]
    head = head(status, headers ++ length ++ connection(keep_alive?))
    body = if bodiless? or request.method == "HEAD", do: [], else: body

    send!(request.reader.socket, [head, body])
    after_answer(keep_alive?)
  end

  @doc "Writes an answer to something that is no request, after which nothing can follow."
  @spec refuse(:gen_tcp.socket(), 400..599) :: :ok
  def refuse(socket, status) do
    body = "#{status} #{@reasons[status]}\n"

    headers = [
      {"content-type", "text/plain"},
      {"content-length", "#{byte_size(body)}"},
      {"connection", "close"}
    ]

    send!(socket, [head(status, headers), body])
  end

  defp head(status, headers) do
    date = Calendar.strftime(DateTime.utc_now(), "%a, %d %b %Y %H:%M:%S GMT")
    lines = for {name, value} <- [{"date", date} | headers], do: [name, ": ", value, "\r\n"]
    ["HTTP/1.1 #{status} #{@reasons[status]}\r\n", lines, "\r\n"]
  end

  defp connection(true), do: []
  defp connection(false), do: [{"connection", "close"}]

  # A piece of no bytes would be read as the end.
  defp chunk(piece) do
    case IO.iodata_length(piece) do
      0 -> []
      length -> [Integer.to_string(length, 16), "\r\n", piece, "\r\n"]
    end
  end

  defp after_answer(true), do: :keep_alive
  defp after_answer(false), do: :close

  defp send!(socket, data) do
    with {:error, _reason} <- :gen_tcp.send(socket, data), do: raise(Closed)
  end
end
