defmodule Demo.HTTP.Body do
  @moduledoc """
  The framing of a request's body (RFC 9112, section 6), read piece by piece as it arrives.

  A client that asked with `Expect: 100-continue` is told to go on when the body is first read, and
  not before: an answer without a look at the body saves it the sending.
  """

  alias Demo.HTTP.{BadRequest, Closed, Reader}

  @typedoc """
  How much is left: nothing, so many bytes, or chunks. Of chunks it is known whether the size of one
  comes next, so many bytes of its data, or the line end behind them.
  """
  @type t ::
          :none
          | {:length, pos_integer()}
          | {:chunked, :size | pos_integer() | :line_end}
          | {:continue, t()}

  @piece 65_536

  @doc "How the body of a request with these headers is framed."
  @spec framing({1, 0 | 1}, [{String.t(), String.t()}]) :: {:ok, t()} | {:error, 400 | 501}
  def framing(version, headers) do
    lengths = for {"content-length", value} <- headers, do: value
    codings = for {"transfer-encoding", value} <- headers, do: String.downcase(value)

    with {:ok, body} <- framing(lengths, codings, version) do
      {:ok, if(expects_continue?(version, headers), do: {:continue, body}, else: body)}
    end
  end

  defp framing([], [], _version), do: {:ok, :none}
  defp framing([], ["chunked"], {1, 1}), do: {:ok, {:chunked, :size}}
  defp framing([], [_other], {1, 1}), do: {:error, 501}

  defp framing([length], [], _version) do
    case length =~ ~r/\A[0-9]{1,18}\z/ && String.to_integer(length) do
      false -> {:error, 400}
      0 -> {:ok, :none}
      length -> {:ok, {:length, length}}
    end
  end

  defp framing(_lengths, _codings, _version), do: {:error, 400}

  defp expects_continue?(version, headers) do
    version == {1, 1} and
      Enum.any?(headers, fn {name, value} ->
        name == "expect" and String.downcase(value) == "100-continue"
      end)
  end

  @doc "The next piece of the body, whatever has arrived of it."
  @spec read(t(), Reader.t()) :: {:ok, binary(), t(), Reader.t()} | {:done, Reader.t()}
  def read(:none, reader), do: {:done, reader}
  def read({:continue, :none}, reader), do: {:done, reader}

  def read({:continue, body}, reader) do
    # A client that went ahead and sent the body needs no permission any more.
    if reader.buffer == "" do
      :ok = continue(:gen_tcp.send(reader.socket, "HTTP/1.1 100 Continue\r\n\r\n"))
    end

    read(body, reader)
  end

  def read({:length, left}, reader) do
    {data, reader} = Reader.take(reader, min(left, @piece))

    case left - byte_size(data) do
      0 -> {:ok, data, :none, reader}
      left -> {:ok, data, {:length, left}, reader}
    end
  end

  def read({:chunked, :size}, reader) do
    {line, reader} = line!(reader)

    case Integer.parse(line, 16) do
      {0, _extension} -> {:done, skip_trailers(reader)}
      {size, _extension} when size > 0 -> read({:chunked, size}, reader)
      _malformed -> raise BadRequest
    end
  end

  def read({:chunked, :line_end}, reader) do
    case line!(reader) do
      {"", reader} -> read({:chunked, :size}, reader)
      _malformed -> raise BadRequest
    end
  end

  def read({:chunked, left}, reader) do
    {data, reader} = Reader.take(reader, min(left, @piece))

    case left - byte_size(data) do
      0 -> {:ok, data, {:chunked, :line_end}, reader}
      left -> {:ok, data, {:chunked, left}, reader}
    end
  end

  defp skip_trailers(reader) do
    case line!(reader) do
      {"", reader} -> reader
      {_trailer, reader} -> skip_trailers(reader)
    end
  end

  defp line!(reader) do
    with {line, reader} <- Reader.packet(reader, :line) do
      {String.trim_trailing(line, "\r\n"), reader}
    else
      :error -> raise BadRequest
    end
  end

  defp continue(:ok), do: :ok
  defp continue({:error, _reason}), do: raise(Closed)
end
