defmodule Demo.WebSocket.Frame do
  @moduledoc "Frames of RFC 6455, section 5: bytes in, frames out, and back. Knows no socket."

  @typedoc "A frame of a client. `opcode` is one that the RFC defines."
  @type t :: %{fin?: boolean(), opcode: opcode(), payload: binary()}

  @type opcode :: :continuation | :text | :binary | :close | :ping | :pong

  @typedoc "A status code of section 7.4.1 that says what was wrong."
  @type reason :: 1002 | 1009

  @max_payload 16 * 1024 * 1024

  @opcodes %{0 => :continuation, 1 => :text, 2 => :binary, 8 => :close, 9 => :ping, 10 => :pong}
  @numbers Map.new(@opcodes, fn {number, opcode} -> {opcode, number} end)

  @doc "Takes one frame of a client off the front of a buffer."
  @spec parse(binary()) :: {:ok, t(), rest :: binary()} | :more | {:error, reason()}
  def parse(<<_fin::1, rsv::3, _::bitstring>>) when rsv != 0, do: {:error, 1002}
  # A client must mask (section 5.1).
  def parse(<<_::8, 0::1, _::bitstring>>), do: {:error, 1002}

  # Control frames are short and whole (section 5.5).
  def parse(<<fin::1, _::3, 1::1, _::3, 1::1, length::7, _::binary>>)
      when fin == 0 or length > 125,
      do: {:error, 1002}

  def parse(<<fin::1, _::3, number::4, 1::1, rest::bitstring>>) do
    with {:ok, opcode} <- opcode(number),
         {:ok, length, rest} <- payload_length(rest) do
      case rest do
        <<mask::binary-size(4), data::binary>> when byte_size(data) >= length ->
          {payload, rest} = :erlang.split_binary(data, length)
          {:ok, %{fin?: fin == 1, opcode: opcode, payload: unmask(payload, mask)}, rest}

        _incomplete ->
          :more
      end
    end
  end

  def parse(_incomplete), do: :more

  @doc "A whole frame as a server sends it."
  @spec encode(opcode(), iodata()) :: iodata()
  def encode(opcode, payload) do
    [<<1::1, 0::3, @numbers[opcode]::4>>, encode_length(IO.iodata_length(payload)), payload]
  end

  defp encode_length(length) when length < 126, do: <<length>>
  defp encode_length(length) when length < 65_536, do: <<126, length::16>>
  defp encode_length(length), do: <<127, length::64>>

  defp opcode(number) do
    with :error <- Map.fetch(@opcodes, number), do: {:error, 1002}
  end

  # The shortest form is the only right one (section 5.2).
  defp payload_length(<<127::7, length::64, _::binary>>) when length < 65_536, do: {:error, 1002}

  defp payload_length(<<127::7, length::64, _::binary>>) when length > @max_payload,
    do: {:error, 1009}

  defp payload_length(<<127::7, length::64, rest::binary>>), do: {:ok, length, rest}
  defp payload_length(<<126::7, length::16, _::binary>>) when length < 126, do: {:error, 1002}
  defp payload_length(<<126::7, length::16, rest::binary>>), do: {:ok, length, rest}
  defp payload_length(<<length::7, rest::binary>>) when length < 126, do: {:ok, length, rest}
  defp payload_length(_incomplete), do: :more

  defp unmask(payload, mask) do
    size = byte_size(payload)
    pad = :binary.copy(mask, div(size + 3, 4))
    :crypto.exor(payload, binary_part(pad, 0, size))
  end
end
