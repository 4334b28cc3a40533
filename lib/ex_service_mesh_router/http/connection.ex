defmodule ExServiceMeshRouter.Http.Connection do
  @moduledoc false
  # Serves one client connection until either side closes it.

  require Logger

  alias ExServiceMeshRouter.Http.{Request, Response, Wire}

  # The maximum milliseconds and bytes to read from a client after its last response.
  @linger 2_000
  @max_unread 1_048_576

  @doc "`options` are those of Http.Server, as a map."
  def serve(socket, options) do
    if exchange(socket, options) == :keep_alive,
      do: serve(socket, options),
      else: linger(socket, @max_unread, Wire.now() + @linger)
  end

  defp exchange(socket, options) do
    {response, request} = answer(socket, options)
    keep_alive? = options.keep_alive and keep_alive?(response, request)
    Response.write(response, request, if(keep_alive?, do: [], else: [{"connection", "close"}]))
    if keep_alive?, do: skip_body(request)
  catch
    {:closed, _reason} -> :close
  end

  defp answer(socket, options) do
    socket |> Request.read(options.timeout) |> options.handler.()
  rescue
    exception ->
      error = Exception.format(:error, exception, __STACKTRACE__)
      Logger.error("the gateway's HTTP server answers 500, because its handler failed: " <> error)
      refuse(socket, 500)
  catch
    {:refuse, status} -> refuse(socket, status)
    # A process that the handler called is restarting or stopping.
    :exit, _reason -> refuse(socket, 503)
  end

  # Closes the connection: the start of the next request is unknown.
  defp refuse(socket, status), do: {Response.of_status(status), %Request{socket: socket}}

  defp keep_alive?({:upgrade, _headers, _fun}, _request), do: false
  # A client that waits for "100 Continue" may or may not send its body now.
  defp keep_alive?(_response, %{expect?: true, body: body}) when body != 0, do: false
  defp keep_alive?(_response, request), do: request.keep_alive?

  # Discards the unread body, up to a size where a new connection costs less.
  defp skip_body(request) do
    Request.reduce_body(request, 0, fn data, size ->
      if size > @max_unread, do: throw({:refuse, 413}), else: size + byte_size(data)
    end)

    :keep_alive
  catch
    {:refuse, _status} -> :close
  end

  # Closing a socket with unread bytes resets the connection, and the client may lose the response.
  defp linger(socket, left, deadline) do
    with :ok <- :gen_tcp.shutdown(socket, :write),
         :ok <- :inet.setopts(socket, packet: :raw),
         {:ok, data} when left > 0 <- :gen_tcp.recv(socket, 0, max(deadline - Wire.now(), 0)),
         do: linger(socket, left - byte_size(data), deadline),
         else: (_end -> :gen_tcp.close(socket))
  end
end
