defmodule Demo.WebSocket do
  @moduledoc """
  Echoes the messages of a WebSocket (RFC 6455). An invalid frame closes the connection with the status
  code for it.
  """

  alias ExServiceMeshRouter.Http.{Request, Wire}

  @guid "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
  @max_size 16 * 1024 * 1024

  @doc "Returns the response to a handshake (section 4.2)."
  def upgrade(request) do
    key = Request.one(request, "sec-websocket-key") || ""

    cond do
      not (request.method == "GET" and Request.token?(request, "upgrade", "websocket") and
               Request.token?(request, "connection", "upgrade")) ->
        {426, [{"upgrade", "websocket"}, {"connection", "upgrade"}], "This is a WebSocket.\n"}

      Request.one(request, "sec-websocket-version") != "13" ->
        {426, [{"sec-websocket-version", "13"}], "Only WebSocket version 13 is supported.\n"}

      not match?({:ok, <<_::128>>}, Base.decode64(key)) ->
        {400, [], "Sec-WebSocket-Key is missing or malformed.\n"}

      true ->
        accept = Base.encode64(:crypto.hash(:sha, key <> @guid))
        headers = [{"upgrade", "websocket"}, {"connection", "Upgrade"}]
        {:upgrade, [{"sec-websocket-accept", accept} | headers], &echo/1}
    end
  end

  defp echo(socket) do
    frames(socket, nil)
  catch
    {:close, payload} -> write(socket, 8, payload)
  end

  # Opcodes: 0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong. `message` is the received part
  # of a fragmented message: `{opcode, data}`.
  defp frames(socket, message), do: frames(socket, socket |> read() |> frame(message, socket))

  defp frame({9, _fin, payload}, message, socket) do
    write(socket, 10, payload)
    message
  end

  defp frame({10, _fin, _payload}, message, _socket), do: message
  defp frame({8, _fin, payload}, _message, _socket), do: throw({:close, farewell(payload)})

  defp frame({0, fin, more}, {opcode, data}, socket),
    do: data(fin, opcode, data <> more, socket)

  defp frame({opcode, fin, data}, nil, socket) when opcode in [1, 2],
    do: data(fin, opcode, data, socket)

  defp frame(_out_of_order, _message, _socket), do: close(1002)

  defp data(_fin, _opcode, data, _socket) when byte_size(data) > @max_size, do: close(1009)
  defp data(0, opcode, data, _socket), do: {opcode, data}

  defp data(1, opcode, data, socket) do
    if opcode == 1 and not String.valid?(data), do: close(1007)
    write(socket, opcode, data)
    nil
  end

  # Section 5.2: a client must mask its frames and use the shortest form of the length.
  defp read(socket) do
    <<fin::1, reserved::3, opcode::4, masked::1, length::7>> = recv(socket, 2)
    fragment_of_control? = opcode >= 8 and (fin == 0 or length > 125)

    if reserved != 0 or masked == 0 or opcode not in [0, 1, 2, 8, 9, 10] or fragment_of_control?,
      do: close(1002)

    size = size(socket, length)
    if size > @max_size, do: close(1009)
    mask = recv(socket, 4)
    payload = recv(socket, size)
    pad = :binary.copy(mask, div(size + 3, 4))
    {opcode, fin, :crypto.exor(payload, binary_part(pad, 0, size))}
  end

  defp size(_socket, length) when length < 126, do: length
  defp size(socket, 126), do: size(socket, 2, 126)
  defp size(socket, 127), do: size(socket, 8, 65_536)

  defp size(socket, bytes, least) do
    size = socket |> recv(bytes) |> :binary.decode_unsigned()
    if size < least, do: close(1002), else: size
  end

  # To :gen_tcp, 0 means any number of bytes.
  defp recv(_socket, 0), do: ""
  defp recv(socket, size), do: Wire.recv!(socket, :raw, size, :infinity)

  # Returns the client's code if it is valid (section 7.4).
  defp farewell(""), do: ""

  defp farewell(<<code::16, reason::binary>>)
       when code in 1000..1003 or code in 1007..1014 or code in 3000..4999,
       do: if(String.valid?(reason), do: <<code::16>>, else: <<1007::16>>)

  defp farewell(_malformed), do: <<1002::16>>

  defp close(code), do: throw({:close, <<code::16>>})

  defp write(socket, opcode, payload),
    do: Wire.send!(socket, [<<1::1, 0::3, opcode::4>>, length_of(byte_size(payload)), payload])

  defp length_of(size) when size < 126, do: <<size>>
  defp length_of(size) when size < 65_536, do: <<126, size::16>>
  defp length_of(size), do: <<127, size::64>>
end
