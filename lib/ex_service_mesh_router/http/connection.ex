defmodule ExServiceMeshRouter.Http.Connection do
  @moduledoc false
  # Serves one client connection until either side closes it.

  require Logger

  alias ExServiceMeshRouter.Http.{Request, Response, Wire}

  # How long, and how much, is read from a client after its last response.
  @linger 2_000
  @max_unread 1_048_576

  @doc "`options` are those of Http.Server, as a map."
  def serve(socket, options) do
    case exchange(socket, options) do
      :keep_alive -> serve(socket, options)
      :close -> linger(socket)
      :closed -> :gen_tcp.close(socket)
    end
  end

  defp exchange(socket, options) do
    {response, request} = answer(socket, options)
    keep_alive? = Map.get(options, :keep_alive, true) and keep_alive?(response, request)
    Response.write(response, request, keep_alive?)
    if keep_alive? and skip_body(request), do: :keep_alive, else: :close
  catch
    :closed -> :closed
  end

  defp answer(socket, options) do
    socket |> Request.read(Map.get(options, :timeout, 60_000)) |> options.handler.()
  rescue
    exception ->
      error = Exception.format(:error, exception, __STACKTRACE__)
      Logger.error("the gateway's HTTP server answers 500, its handler failed: " <> error)
      refuse(socket, 500)
  catch
    {:refuse, status} -> refuse(socket, status)
    # A process that the handler asks is being restarted, or ends.
    :exit, _reason -> refuse(socket, 503)
  end

  # Without keep_alive?: the next request could begin anywhere.
  defp refuse(socket, status), do: {Response.of_status(status), %Request{socket: socket}}

  defp keep_alive?({:upgrade, _headers, _fun}, _request), do: false
  # A client that waits for "100 Continue" may send its body now, or not.
  defp keep_alive?(_response, %{expect?: true, body: body}) when body != 0, do: false
  defp keep_alive?(_response, request), do: request.keep_alive?

  # Reads what the handler has left of the body; from so many bytes on a new connection costs less.
  defp skip_body(request) do
    Request.reduce_body(request, 0, fn data, size ->
      if size > @max_unread, do: throw({:refuse, 413}), else: size + byte_size(data)
    end)
  catch
    {:refuse, _status} -> false
  end

  # Closing a socket with unread bytes in it resets the connection, and the response may be lost.
  defp linger(socket) do
    _ = :gen_tcp.shutdown(socket, :write)
    linger(socket, @max_unread, System.monotonic_time(:millisecond) + @linger)
  catch
    :closed -> :gen_tcp.close(socket)
  end

  defp linger(_socket, left, _deadline) when left < 0, do: throw(:closed)

  defp linger(socket, left, deadline) do
    pause = max(deadline - System.monotonic_time(:millisecond), 0)
    linger(socket, left - byte_size(Wire.recv!(socket, :raw, 0, pause)), deadline)
  end
end
