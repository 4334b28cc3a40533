defmodule ExServiceMeshRouter.Http.Wire do
  @moduledoc false
  # Reads and writes HTTP/1.1 on a socket, for the server and the client. The VM parses the lines
  # (`packet: :http_bin`), so names that a client sends never become new atoms.

  @max_fields 256
  @max_head 131_072

  # The buffer is the longest line: the VM closes a socket on which a longer one arrives.
  def socket_options,
    do: [:binary, active: false, buffer: 65_536, send_timeout: 30_000, send_timeout_close: true]

  @doc """
  Reads the first line and the fields of a message, within `timeout` milliseconds in all:
  `{:ok, line, fields}`, or `{:error, reason}` with `:malformed`, `:too_large`, or what the socket
  says. The names of the fields are in lower case.
  """
  def head(socket, timeout) do
    deadline = System.monotonic_time(:millisecond) + timeout

    with :ok <- :inet.setopts(socket, packet: :http_bin),
         {:ok, line} <- first(socket, deadline),
         {:ok, fields} <- fields(socket, deadline, [], @max_head),
         do: {:ok, line, fields}
  end

  # An empty line before a request is ignored (RFC 9112, section 2.2).
  defp first(socket, deadline) do
    with {:ok, {:http_error, line}} <- packet(socket, deadline),
         do: if(line in ["\r\n", "\n"], do: first(socket, deadline), else: {:error, :malformed})
  end

  defp fields(_socket, _deadline, fields, left) when left < 0 or length(fields) > @max_fields,
    do: {:error, :too_large}

  defp fields(socket, deadline, fields, left) do
    case packet(socket, deadline) do
      {:ok, {:http_header, _, name, _, value}} ->
        name = name |> to_string() |> String.downcase(:ascii)
        # The VM removes white space only before the value.
        field = {name, String.trim_trailing(value)}
        fields(socket, deadline, [field | fields], left - byte_size(name) - byte_size(value))

      {:ok, :http_eoh} ->
        {:ok, Enum.reverse(fields)}

      {:ok, _malformed} ->
        {:error, :malformed}

      error ->
        error
    end
  end

  defp packet(socket, deadline),
    do: :gen_tcp.recv(socket, 0, max(deadline - System.monotonic_time(:millisecond), 0))

  @doc "Receives in a packet mode (`:raw`, `:line`), or throws `:closed`."
  def recv!(socket, mode, length, timeout) do
    with :ok <- :inet.setopts(socket, packet: mode),
         {:ok, data} <- :gen_tcp.recv(socket, length, timeout),
         do: data,
         else: (_error -> throw(:closed))
  end

  @doc "Sends, or throws `:closed`."
  def send!(socket, data) do
    with {:error, _reason} <- :gen_tcp.send(socket, data), do: throw(:closed)
  end

  @doc "A head as it is sent."
  def format(line, fields),
    do: [line, "\r\n", for({name, value} <- fields, do: [name, ": ", value, "\r\n"]), "\r\n"]
end
