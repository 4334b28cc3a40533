defmodule Demo.WebSocketTest do
  use ExUnit.Case, async: true

  import Bitwise

  alias ExServiceMeshRouter.Http.Server
  alias Demo.WebSocket
  alias ExServiceMeshRouter.RawClient

  # The example of RFC 6455, section 1.3.
  @key "dGhlIHNhbXBsZSBub25jZQ=="
  @accept "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

  @opcodes %{continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10}

  setup do
    server = start_supervised!({Server, handler: &{WebSocket.upgrade(&1), &1}})
    %{url: Server.url(server)}
  end

  defp handshake(headers) do
    lines = for {name, value} <- headers, do: "#{name}: #{value}\r\n"
    "GET /ws HTTP/1.1\r\nHost: a\r\n#{lines}\r\n"
  end

  defp headers do
    [
      {"Upgrade", "WebSocket"},
      {"Connection", "keep-alive, Upgrade"},
      {"Sec-WebSocket-Key", @key},
      {"Sec-WebSocket-Version", "13"}
    ]
  end

  defp open(url) do
    socket = RawClient.connect(url)
    RawClient.send(socket, handshake(headers()))
    assert RawClient.read_until(socket, "\r\n\r\n") =~ "sec-websocket-accept: #{@accept}\r\n"
    socket
  end

  defp frame(opcode, payload, fin \\ 1) do
    mask = <<17, 34, 51, 255>>

    masked =
      for {byte, index} <- Enum.with_index(:binary.bin_to_list(payload)), into: "" do
        <<bxor(byte, :binary.at(mask, rem(index, 4)))>>
      end

    length =
      case byte_size(payload) do
        size when size < 126 -> <<1::1, size::7>>
        size when size < 65_536 -> <<1::1, 126::7, size::16>>
        size -> <<1::1, 127::7, size::64>>
      end

    <<fin::1, 0::3, @opcodes[opcode]::4, length::binary, mask::binary, masked::binary>>
  end

  # A short frame of the server: never masked, always whole.
  defp answer(opcode, payload),
    do: <<1::1, 0::3, @opcodes[opcode]::4, byte_size(payload), payload::binary>>

  defp assert_closes_with(socket, code) do
    assert RawClient.read_to_end(socket) == answer(:close, <<code::16>>)
  end

  describe "the handshake (section 4.2)" do
    test "takes along what was sent together with it", %{url: url} do
      socket = RawClient.connect(url)
      RawClient.send(socket, handshake(headers()) <> frame(:text, "early"))
      read = RawClient.read_until(socket, "early")
      assert String.ends_with?(read, "\r\n\r\n" <> answer(:text, "early"))
    end

    test "tells a client of another version which one is spoken", %{url: url} do
      other =
        List.keyreplace(headers(), "Sec-WebSocket-Version", 0, {"Sec-WebSocket-Version", "8"})

      request = handshake([{"Connection", "close"} | other])
      answer = RawClient.exchange(url, request)
      assert answer =~ ~r/\AHTTP\/1.1 426 /
      assert answer =~ "sec-websocket-version: 13\r\n"
    end

    test "needs a key, and an upgrade", %{url: url} do
      no_key = [{"Connection", "close"} | List.keydelete(headers(), "Sec-WebSocket-Key", 0)]
      assert RawClient.exchange(url, handshake(no_key)) =~ ~r/\AHTTP\/1.1 400 /
      assert RawClient.exchange(url, handshake([{"Connection", "close"}])) =~ ~r/\AHTTP\/1.1 426 /
    end
  end

  describe "messages (section 5.6)" do
    test "come back as they were, in each of the three forms of the length", %{url: url} do
      socket = open(url)

      for opcode <- [:text, :binary], size <- [0, 1, 125, 126, 65_535, 65_536, 300_000] do
        payload = String.duplicate("e", size)
        RawClient.send(socket, frame(opcode, payload))

        header =
          case size do
            size when size < 126 -> <<1::1, 0::3, @opcodes[opcode]::4, size>>
            size when size < 65_536 -> <<1::1, 0::3, @opcodes[opcode]::4, 126, size::16>>
            size -> <<1::1, 0::3, @opcodes[opcode]::4, 127, size::64>>
          end

        assert RawClient.read(socket, byte_size(header) + size) == header <> payload
      end
    end

    test "may be fragments, with control frames between them (section 5.4)", %{url: url} do
      socket = open(url)

      # The character is cut in two.
      <<first::binary-size(1), second::binary>> = "ü"
      RawClient.send(socket, frame(:text, first, 0))
      RawClient.send(socket, frame(:ping, "still there?"))
      expected = answer(:pong, "still there?")
      assert RawClient.read(socket, byte_size(expected)) == expected

      RawClient.send(socket, frame(:pong, "unasked"))
      RawClient.send(socket, frame(:continuation, "", 0))
      RawClient.send(socket, frame(:continuation, second <> "!"))
      expected = answer(:text, "ü!")
      assert RawClient.read(socket, byte_size(expected)) == expected
    end
  end

  describe "closing (section 5.5.1)" do
    test "is answered with the same code, then the connection ends", %{url: url} do
      socket = open(url)
      RawClient.send(socket, frame(:close, <<4001::16, "bye">>))
      assert_closes_with(socket, 4001)
    end

    test "may say nothing", %{url: url} do
      socket = open(url)
      RawClient.send(socket, frame(:close, ""))
      assert RawClient.read_to_end(socket) == answer(:close, "")
    end

    test "tells what was wrong", %{url: url} do
      for {bytes, code} <- [
            # not masked (section 5.1)
            {<<0x81, 1, "a">>, 1002},
            # a reserved bit (section 5.2)
            {<<0xC1, 0x80, 0::32>>, 1002},
            # an opcode that does not exist
            {<<0x83, 0x80, 0::32>>, 1002},
            # a length longer than it need be
            {<<0x81, 0xFE, 5::16, 0::32, "abcde">>, 1002},
            # a control frame in fragments, and one that is too long (section 5.5)
            {frame(:ping, "", 0), 1002},
            {frame(:ping, String.duplicate("p", 126)), 1002},
            # fragments out of order (section 5.4)
            {frame(:continuation, "b"), 1002},
            {frame(:text, "a", 0) <> frame(:text, "b"), 1002},
            # text that is no UTF-8 (section 8.1)
            {frame(:text, <<0xFF>>), 1007},
            # more than this server takes
            {<<0x82, 0xFF, 1_000_000_000::64>>, 1009},
            # codes that are never sent (section 7.4.1)
            {frame(:close, <<1005::16>>), 1002},
            {frame(:close, "x"), 1002},
            {frame(:close, <<1000::16, 0xFF>>), 1007}
          ] do
        socket = open(url)
        RawClient.send(socket, bytes)
        assert_closes_with(socket, code)
      end
    end
  end
end
