defmodule ExServiceMeshRouter.Http.Connection do
  @moduledoc false
  # One connection: a request, its answer, the end.

  require Logger

  alias ExServiceMeshRouter.Http.{Request, Response}

  # For how long, and how much, what a client still sends is read after it was answered.
  @linger 1_000
  @most_unread 1_048_576

  @doc "The process of a connection; it is given its socket in a message."
  def start(handler) do
    receive do
      {:socket, socket} -> serve(socket, handler)
    after
      5_000 -> :ok
    end
  end

  defp serve(socket, handler) do
    case Request.read(socket) do
      {:ok, request} ->
        Response.write(socket, answer(request, handler), request.method)
        linger(socket)

      {:error, status} ->
        refuse(socket, status)

      :closed ->
        :gen_tcp.close(socket)
    end
  end

  @doc "Answers with a status, whatever was asked, and closes."
  def refuse(socket, status) do
    Response.write(socket, error(status), "GET")
    :gen_tcp.close(socket)
  end

  defp answer(request, handler) do
    handler.(request)
  rescue
    exception ->
      Logger.error(
        "the gateway's own page failed: " <>
          Exception.format(:error, exception, __STACKTRACE__)
      )

      error(500)
  catch
    # What it asks is being started again, or ends.
    :exit, _reason -> error(503)
  end

  defp error(status),
    do: {status, [{"content-type", "text/plain; charset=utf-8"}], [Response.reason(status), "\n"]}

  # Closing a socket with unread bytes in it resets the connection, and the answer may be lost.
  defp linger(socket) do
    with :ok <- :gen_tcp.shutdown(socket, :write),
         :ok <- :inet.setopts(socket, packet: :raw),
         do: linger(socket, @most_unread, System.monotonic_time(:millisecond) + @linger)

    :gen_tcp.close(socket)
  end

  defp linger(socket, left, deadline) when left > 0 do
    pause = max(deadline - System.monotonic_time(:millisecond), 0)

    with {:ok, data} <- :gen_tcp.recv(socket, 0, pause),
         do: linger(socket, left - byte_size(data), deadline)
  end

  defp linger(_socket, _left, _deadline), do: :ok
end
