defmodule Demo.WebSocket do
  @moduledoc """
  A WebSocket that echoes (RFC 6455): every text and binary message comes back as it was, whole.

  Pings are answered in the middle of a fragmented message, too; text that is no UTF-8 and frames
  that break a rule end the connection with the status code that says why.
  """

  alias Demo.HTTP.{Reader, Request, Response}
  alias Demo.WebSocket.Frame

  @guid "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
  @max_message 16 * 1024 * 1024

  @doc "The answer to a handshake (section 4.2), or to what is none."
  @spec upgrade(Request.t()) :: Response.t()
  def upgrade(request) do
    cond do
      not handshake?(request) ->
        headers = [{"upgrade", "websocket"}, {"connection", "upgrade"}]
        {426, [{"content-type", "text/plain"} | headers], "This is a WebSocket.\n"}

      Request.header(request, "sec-websocket-version") != "13" ->
        {426, [{"sec-websocket-version", "13"}], "WebSocket version 13 is spoken here.\n"}

      not key?(Request.header(request, "sec-websocket-key")) ->
        {400, [], "Sec-WebSocket-Key is missing or wrong.\n"}

      true ->
        {:upgrade,
         [
           {"upgrade", "websocket"},
           {"connection", "Upgrade"},
           {"sec-websocket-accept", accept(Request.header(request, "sec-websocket-key"))}
         ], &echo(&1, nil)}
    end
  end

  defp handshake?(request) do
    request.method == "GET" and request.version == {1, 1} and
      Request.token?(request, "upgrade", "websocket") and
      Request.token?(request, "connection", "upgrade")
  end

  defp key?(key), do: is_binary(key) and match?({:ok, <<_::128>>}, Base.decode64(key))
  defp accept(key), do: Base.encode64(:crypto.hash(:sha, key <> @guid))

  # `message` is nil, or {opcode, size, parts} in the middle of a fragmented message.
  defp echo(reader, message) do
    case Frame.parse(reader.buffer) do
      {:ok, frame, rest} -> frame(frame, message, %{reader | buffer: rest})
      :more -> reader |> Reader.more() |> echo(message)
      {:error, code} -> close(reader, <<code::16>>)
    end
  end

  defp frame(%{opcode: :ping, payload: payload}, message, reader) do
    reply(reader, :pong, payload)
    echo(reader, message)
  end

  defp frame(%{opcode: :pong}, message, reader), do: echo(reader, message)
  defp frame(%{opcode: :close, payload: payload}, _, reader), do: close(reader, farewell(payload))

  defp frame(%{opcode: :continuation}, nil, reader), do: close(reader, <<1002::16>>)

  defp frame(%{opcode: :continuation} = frame, message, reader), do: data(frame, message, reader)
  defp frame(frame, nil, reader), do: data(frame, {frame.opcode, 0, []}, reader)
  defp frame(_frame, _unfinished, reader), do: close(reader, <<1002::16>>)

  defp data(%{payload: payload} = frame, {opcode, size, parts}, reader) do
    size = size + byte_size(payload)
    parts = [parts, payload]

    cond do
      size > @max_message ->
        close(reader, <<1009::16>>)

      not frame.fin? ->
        echo(reader, {opcode, size, parts})

      opcode == :text and not String.valid?(IO.iodata_to_binary(parts)) ->
        close(reader, <<1007::16>>)

      true ->
        reply(reader, opcode, parts)
        echo(reader, nil)
    end
  end

  # A close is answered with its own code, if it is one that may be sent (section 7.4).
  defp farewell(""), do: ""

  defp farewell(<<code::16, reason::binary>>)
       when code in 1000..1003 or code in 1007..1014 or code in 3000..4999 do
    if String.valid?(reason), do: <<code::16>>, else: <<1007::16>>
  end

  defp farewell(_malformed), do: <<1002::16>>

  defp close(reader, payload), do: reply(reader, :close, payload)

  defp reply(reader, opcode, payload) do
    with {:error, _reason} <- :gen_tcp.send(reader.socket, Frame.encode(opcode, payload)),
         do: raise(Demo.HTTP.Closed)
  end
end
