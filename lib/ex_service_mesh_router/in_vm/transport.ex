defmodule ExServiceMeshRouter.InVm.Transport do
  @moduledoc false
  # What Bandit's pipeline reads a request from and writes its response to: a call of the data plane in
  # place of a socket. Implements `Bandit.HTTPTransport`, see the module at the end.
  #
  # Must compile without Bandit. Traps: Bandit gives send_on_error/2 the transport as it was before the
  # response; whether one has begun is only in the mailbox. An empty send_data/3 must not write, because an
  # empty chunk would end the body.

  alias ExServiceMeshRouter.{Native, RemoteIp}

  # request: `{method, target, headers}` until it is read. unread: `{:length, n}`, `:chunked`, or `:none`
  # at the end of the body. continue?: the client waits for 100 (Continue). state: of the response,
  # `:unsent`, `:writing` or `:sent`.
  @enforce_keys [:call, :request, :version, :client, :unread, :continue?]
  defstruct @enforce_keys ++ [state: :unsent]

  # Defaults of Plug.Conn.read_body/2.
  @length 8_000_000
  @read_length 1_000_000
  @read_timeout 15_000

  # How much of a file is read at once.
  @file_step 65_536

  # A safety net: the data plane sends a message when there is room, and when the client is gone.
  @look_again 5_000

  def peer_data(transport), do: %{address: transport.client, port: 0, ssl_cert: nil}

  def sock_data(_transport) do
    {address, port} = RemoteIp.gateway()
    %{address: address, port: port}
  end

  def ssl_data(_transport), do: nil
  def version(transport), do: transport.version

  def read_headers(%{request: {method, target, headers}} = transport),
    do: {:ok, method, target, headers, %{transport | request: nil}}

  def read_data(%{unread: :none} = transport, _options), do: {:ok, "", transport}

  def read_data(transport, options) do
    length = Keyword.get(options, :length, @length)
    step = options |> Keyword.get(:read_length, @read_length) |> max(1)
    timeout = Keyword.get(options, :read_timeout, @read_timeout)
    transport |> continue() |> read(length, step, timeout, [])
  end

  # Bandit does this itself since 1.12.4.
  defp continue(%{continue?: true} = transport), do: send_headers(transport, 100, [], :inform)
  defp continue(transport), do: transport

  defp read(%{unread: :none} = transport, _left, _step, _timeout, parts),
    do: {:ok, Enum.reverse(parts), transport}

  defp read(transport, 0, _step, _timeout, parts), do: {:more, Enum.reverse(parts), transport}

  defp read(%{call: call} = transport, left, step, timeout, parts) do
    case Native.call_read(call, min(left, step)) do
      {:ok, part} ->
        size = byte_size(part)
        read(took(transport, size), left - size, step, timeout, [part | parts])

      :end ->
        {:ok, Enum.reverse(parts), %{transport | unread: :none}}

      :pending ->
        receive do
          {^call, :readable} -> read(transport, left, step, timeout, parts)
        after
          timeout -> too_late(call)
        end

      :closed ->
        transport_error(:closed)
    end
  end

  defp took(%{unread: {:length, size}} = transport, size), do: %{transport | unread: :none}

  defp took(%{unread: {:length, unread}} = transport, size),
    do: %{transport | unread: {:length, unread - size}}

  defp took(transport, _size), do: transport

  # As Bandit: a client that has gone while it was waited for is no timeout.
  defp too_late(call) do
    if Native.call_alive(call),
      do: raise_error(Bandit.HTTPError, message: "Read timeout", plug_status: :request_timeout),
      else: transport_error(:closed)
  end

  def send_headers(%{state: :unsent} = transport, status, headers, :inform) do
    head(transport, status, headers, :interim)
    # Another one, such as 103 (Early Hints), does not let the client send its body.
    %{transport | continue?: transport.continue? and status != 100}
  end

  def send_headers(%{state: :unsent} = transport, status, headers, :no_body) do
    head(transport, status, headers, :none)
    finish(transport)
  end

  def send_headers(%{state: :unsent} = transport, status, headers, :raw) do
    head(transport, status, headers, :length)
    %{transport | state: :writing}
  end

  def send_headers(%{state: :unsent} = transport, status, headers, :chunk_encoded) do
    length? = List.keymember?(headers, "content-length", 0)
    head(transport, status, headers, if(length?, do: :length, else: :chunked))
    # The data plane keeps such a head for the first data, which may come much later.
    if length?, do: Native.call_flush(transport.call)
    %{transport | state: :writing}
  end

  defp head(transport, status, headers, framing) do
    case Native.call_head(transport.call, status, headers, framing) do
      :ok -> :ok
      :closed -> closed()
      {:error, text} -> raise ArgumentError, "cannot send the response: #{text}"
    end
  end

  def send_data(%{state: :writing} = transport, data, end?) do
    # Here, because a NIF must not copy megabytes.
    data = flat(data)
    if data != "", do: write(transport, data, 0)
    if end?, do: finish(transport), else: transport
  end

  # Bandit's list around a body: the body need not be copied.
  defp flat([data | []]), do: flat(data)
  defp flat(data) when is_binary(data), do: data
  defp flat(data), do: IO.iodata_to_binary(data)

  defp write(%{call: call} = transport, data, offset) do
    case Native.call_data(call, data, offset) do
      :ok ->
        :ok

      {:more, offset} ->
        receive do
          {^call, :room} -> :ok
        after
          @look_again -> :ok
        end

        write(transport, data, offset)

      :closed ->
        closed()
    end
  end

  defp finish(transport) do
    Native.call_finish(transport.call)
    %{transport | state: :sent}
  end

  def sendfile(%{state: :writing} = transport, path, offset, length) do
    with {:ok, file} <- :file.open(path, [:read, :raw, :binary]),
         result = send_part(transport, file, offset, length),
         :ok <- :file.close(file),
         :ok <- result do
      finish(transport)
    else
      {:error, reason} -> transport_error(reason)
    end
  end

  defp send_part(_transport, _file, _offset, 0), do: :ok

  defp send_part(transport, file, offset, length) do
    case :file.pread(file, offset, min(length, @file_step)) do
      {:ok, part} ->
        write(transport, part, 0)
        send_part(transport, file, offset + byte_size(part), length - byte_size(part))

      # The file has become shorter since Bandit looked.
      :eof ->
        {:error, :eof}

      error ->
        error
    end
  end

  # The gateway drops what a response leaves unread of its request.
  def ensure_completed(transport), do: transport

  # Requests for WebSockets use the socket. Bandit refuses others, with the status of its checks.
  def supported_upgrade?(_transport, protocol), do: protocol == :websocket

  def send_on_error(transport, %{__struct__: Bandit.TransportError}), do: transport

  def send_on_error(transport, error) do
    receive do
      {:plug_conn, :sent} -> %{transport | state: :sent}
    after
      0 -> send_status(transport, status(error))
    end
  end

  defp send_status(transport, status) do
    Native.call_head(transport.call, status, [{"content-length", "0"}], :length)
    finish(transport)
  end

  defp status(error),
    do: apply(Plug.Conn.Status, :code, [apply(Plug.Exception, :status, [error])])

  # With the message, Bandit does not try to send an error.
  defp closed do
    send(self(), {:plug_conn, :sent})
    transport_error(:closed)
  end

  defp transport_error(reason) do
    message = "Unrecoverable error: #{reason}"
    raise_error(Bandit.TransportError, message: message, error: reason)
  end

  defp raise_error(module, fields), do: :erlang.error(struct!(module, fields))
end

defmodule Bandit.HTTPTransport.ExServiceMeshRouter.InVm.Transport do
  @moduledoc false
  # What `defimpl` would make, for a protocol that need not exist. Protocols find the module by its name,
  # and their consolidation by the attribute.

  alias ExServiceMeshRouter.InVm.Transport

  Module.register_attribute(__MODULE__, :__impl__, persist: true)
  @__impl__ [protocol: Bandit.HTTPTransport, for: Transport]

  def __impl__(:for), do: Transport
  def __impl__(:target), do: __MODULE__
  def __impl__(:protocol), do: Bandit.HTTPTransport

  defdelegate peer_data(transport), to: Transport
  defdelegate sock_data(transport), to: Transport
  defdelegate ssl_data(transport), to: Transport
  defdelegate version(transport), to: Transport
  defdelegate read_headers(transport), to: Transport
  defdelegate read_data(transport, options), to: Transport
  defdelegate send_headers(transport, status, headers, disposition), to: Transport
  defdelegate send_data(transport, data, end?), to: Transport
  defdelegate sendfile(transport, path, offset, length), to: Transport
  defdelegate ensure_completed(transport), to: Transport
  defdelegate supported_upgrade?(transport, protocol), to: Transport
  defdelegate send_on_error(transport, error), to: Transport
end
