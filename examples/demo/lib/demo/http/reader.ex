defmodule Demo.HTTP.Reader do
  @moduledoc """
  What has come in on a socket and what is yet to come.

  The bytes are kept here, and not in the socket's own packet modes, because one connection carries
  lines, counted bytes and WebSocket frames in turn, and a client may send the next before the last
  was answered.

  A connection that ends or falls silent in the middle of something is no fault of the caller and
  leaves it nothing to do, so that is an exception: `Demo.HTTP.Closed`.
  """

  alias Demo.HTTP.Closed

  @enforce_keys [:socket, :timeout]
  defstruct [:socket, :timeout, buffer: ""]

  @type t :: %__MODULE__{socket: :gen_tcp.socket(), timeout: timeout(), buffer: binary()}

  @doc "Waits for more bytes to be in the buffer."
  @spec more(t()) :: t()
  def more(%{buffer: buffer} = reader) do
    case :gen_tcp.recv(reader.socket, 0, reader.timeout) do
      {:ok, data} -> %{reader | buffer: buffer <> data}
      {:error, _reason} -> raise Closed
    end
  end

  @doc "Takes what is there, at least one byte and at most `most`."
  @spec take(t(), pos_integer()) :: {binary(), t()}
  def take(%{buffer: ""} = reader, most), do: reader |> more() |> take(most)

  def take(%{buffer: buffer} = reader, most) do
    {data, rest} = :erlang.split_binary(buffer, min(most, byte_size(buffer)))
    {data, %{reader | buffer: rest}}
  end

  @doc "Takes one packet of `:erlang.decode_packet/3`: a request line, a header line, a line."
  @spec packet(t(), :http_bin | :httph_bin | :line) :: {term(), t()} | :error
  def packet(%{buffer: buffer} = reader, type) do
    case :erlang.decode_packet(type, buffer, packet_size: 65_536, line_length: 65_536) do
      {:ok, packet, rest} -> {packet, %{reader | buffer: rest}}
      {:more, _length} when byte_size(buffer) > 65_536 -> :error
      {:more, _length} -> reader |> more() |> packet(type)
      {:error, _reason} -> :error
    end
  end
end
