defmodule Demo.HTTP.Connection do
  @moduledoc "One connection: request after request, until one side has had enough."

  alias Demo.HTTP.{BadRequest, Closed, Reader, Request, Response}

  # What a client still sends after it was answered is read up to here to keep the connection;
  # above that a new connection costs less.
  @most_unread 1_048_576

  @spec serve(:gen_tcp.socket(), (Request.t() -> {Response.t(), Request.t()}), timeout()) :: :ok
  def serve(socket, handler, timeout) do
    next(%Reader{socket: socket, timeout: timeout}, handler)
  rescue
    Closed -> :ok
  after
    :gen_tcp.close(socket)
  end

  defp next(reader, handler) do
    with {:ok, request} <- Request.read(reader),
         {:keep_alive, request} <- answer(request, handler),
         {:ok, reader} <- skip_body(request) do
      next(reader, handler)
    else
      {:error, status} ->
        Response.refuse(reader.socket, status)
        linger(reader.socket)

      {:close, request} ->
        linger(request.reader.socket)

      :close ->
        linger(reader.socket)
    end
  end

  defp answer(request, handler) do
    {response, request} = handler.(request)
    {Response.write(response, request, keep_alive?(request)), request}
  rescue
    BadRequest -> {:error, 400}
  end

  # A client that still waits for "100 Continue" may or may not send its body now: nobody can tell
  # where the next request would begin.
  defp keep_alive?(%{version: {1, 0}}), do: false
  defp keep_alive?(%{body: {:continue, body}}) when body != :none, do: false
  defp keep_alive?(request), do: not Request.token?(request, "connection", "close")

  defp skip_body(request) do
    {_size, request} =
      Request.reduce_body(request, 0, fn data, size ->
        if size > @most_unread, do: throw(:enough), else: size + byte_size(data)
      end)

    {:ok, request.reader}
  rescue
    BadRequest -> :close
  catch
    :enough -> :close
  end

  # Closing a socket with unread bytes in it resets the connection, and the client may lose the
  # answer that is still on its way. So: say that nothing follows, and read on for a little while.
  defp linger(socket) do
    _ = :gen_tcp.shutdown(socket, :write)
    linger(socket, System.monotonic_time(:millisecond) + 2_000)
  end

  defp linger(socket, deadline) do
    left = max(deadline - System.monotonic_time(:millisecond), 0)
    with {:ok, _data} <- :gen_tcp.recv(socket, 0, left), do: linger(socket, deadline)
    :ok
  end
end
