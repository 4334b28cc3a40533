defmodule ExServiceMeshRouter.Http.Wire do
  @moduledoc false
  # Reads and writes HTTP/1.1 on a socket, for the server and the client. The VM parses the lines
  # (`packet: :http_bin`), so field names never become new atoms. Throws `{:refuse, status}` for a
  # malformed message and `{:closed, reason}` for a closed socket.

  @max_fields 256
  @max_head 131_072

  # The buffer bounds the length of a line: the VM closes the socket on a longer one.
  def socket_options,
    do: [:binary, active: false, buffer: 65_536, send_timeout: 30_000, send_timeout_close: true]

  @doc """
  Reads the first line and the fields of a message within `timeout` milliseconds in total. Returns the
  field names in lower case.
  """
  def head(socket, timeout) do
    deadline = now() + timeout
    {first(socket, deadline), fields(socket, deadline, [], @max_head)}
  end

  defp first(socket, deadline) do
    case recv!(socket, :http_bin, 0, deadline - now()) do
      # An empty line before a request is ignored (RFC 9112, section 2.2).
      {:http_error, line} when line in ["\r\n", "\n"] -> first(socket, deadline)
      {:http_error, _line} -> throw({:refuse, 400})
      line -> line
    end
  end

  defp fields(_socket, _deadline, fields, left) when left < 0 or length(fields) > @max_fields,
    do: throw({:refuse, 431})

  defp fields(socket, deadline, fields, left) do
    case recv!(socket, :httph_bin, 0, deadline - now()) do
      {:http_header, _, name, _, value} ->
        name = name |> to_string() |> String.downcase(:ascii)
        # The VM trims only the start of the value.
        field = {name, String.trim_trailing(value)}
        fields(socket, deadline, [field | fields], left - byte_size(name) - byte_size(value))

      :http_eoh ->
        Enum.reverse(fields)

      _malformed ->
        throw({:refuse, 400})
    end
  end

  def now, do: System.monotonic_time(:millisecond)

  @doc "Receives data in a packet mode of `:gen_tcp`."
  def recv!(socket, mode, length, timeout) do
    with :ok <- :inet.setopts(socket, packet: mode),
         {:ok, data} <- :gen_tcp.recv(socket, length, max(timeout, 0)),
         do: data,
         else: ({:error, reason} -> throw({:closed, reason}))
  end

  def send!(socket, data),
    do: with({:error, reason} <- :gen_tcp.send(socket, data), do: throw({:closed, reason}))

  @doc "Sends a head."
  def send_head(socket, line, fields, body \\ []) do
    fields = for {name, value} <- fields, do: [name, ": ", value, "\r\n"]
    send!(socket, [line, "\r\n", fields, "\r\n", body])
  end
end
