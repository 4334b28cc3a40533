defmodule ExServiceMeshRouter.Handover.Wire do
  @moduledoc false
  # Sends and receives the messages of a handover: a length of four bytes, then a JSON object. Every
  # object has the version of the protocol, so that another version can be refused in words.
  #
  # recv/2 has no room for descriptors, so the kernel closes those that a client sends.

  # Not Jason: the code server of a starting VM takes long to tell that there is none.
  alias ExServiceMeshRouter.Json
  alias ExServiceMeshRouter.Json.Fallback
  alias ExServiceMeshRouter.Native

  @protocol 1
  @longest 65_536
  # The time for a message that has begun.
  @whole 5_000
  # Control data of up to 100 descriptors.
  @control 512

  @doc "Returns the version of the protocol."
  def protocol, do: @protocol

  @doc "Sends a message, with descriptors if there are any."
  def send(socket, type, fields \\ %{}, descriptors \\ []) do
    json = fields |> Map.merge(%{type: type, protocol: @protocol}) |> Json.encode(Fallback)
    frame = <<byte_size(json)::32, json::binary>>
    transmit(socket, frame, descriptors)
  end

  defp transmit(socket, frame, []), do: socket |> :socket.send(frame, @whole) |> sent()

  # The descriptors belong to the first byte, so they cannot be lost when only a part is sent.
  defp transmit(socket, frame, descriptors) do
    data = for fd <- descriptors, into: <<>>, do: <<fd::native-32>>
    message = %{iov: [frame], ctrl: [%{level: :socket, type: :rights, data: data}]}

    case :socket.sendmsg(socket, message, [], @whole) do
      {:ok, rest} -> transmit(socket, IO.iodata_to_binary(rest), [])
      result -> sent(result)
    end
  end

  defp sent(:ok), do: :ok
  defp sent({:error, {reason, _rest}}), do: {:error, reason}
  defp sent({:error, reason}), do: {:error, reason}

  @doc """
  Returns whether there is something to read within `timeout`: `:message`, `:timeout`, or `:closed`.
  """
  def poll(socket, timeout) do
    case :socket.recv(socket, 1, [:peek], timeout) do
      {:ok, _byte} -> :message
      {:error, :timeout} -> :timeout
      {:error, _reason} -> :closed
    end
  end

  @doc """
  Receives a message: `{:ok, map}` or `{:error, reason}`. The reason is `:timeout` if none begins within
  `timeout`, `:closed`, or a text that says what is wrong with the message.
  """
  def recv(socket, timeout) do
    with :message <- poll(socket, timeout),
         {:ok, <<length::32>>} <- exactly(socket, 4),
         {:ok, message} <- body(socket, length) do
      {:ok, message}
    else
      :timeout -> {:error, :timeout}
      :closed -> {:error, :closed}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "As `recv/2`, for a message that may come with descriptors: `{:ok, map, descriptors}`."
  def recv_descriptors(socket, timeout) do
    case :socket.recvmsg(socket, 4, @control, [:cmsg_cloexec], timeout) do
      {:ok, %{iov: [header], ctrl: control}} ->
        with_descriptors(descriptors(control), read(socket, header))

      {:error, {:timeout, _part}} ->
        {:error, :timeout}

      {:ok, _no_bytes} ->
        {:error, :closed}

      {:error, reason} ->
        {:error, reason}
    end
  end

  defp with_descriptors(descriptors, {:ok, message}), do: {:ok, message, descriptors}

  defp with_descriptors(descriptors, error) do
    Native.close_listeners(descriptors)
    error
  end

  defp read(socket, header) do
    with {:ok, <<length::32>>} <- rest(socket, header), do: body(socket, length)
  end

  defp descriptors(control) do
    for %{level: :socket, type: :rights, data: data} <- control,
        <<fd::native-32 <- data>>,
        do: fd
  end

  defp rest(_socket, <<_::32>> = header), do: {:ok, header}
  defp rest(_socket, ""), do: {:error, :closed}

  defp rest(socket, part) do
    with {:ok, more} <- exactly(socket, 4 - byte_size(part)), do: {:ok, part <> more}
  end

  defp body(_socket, length) when length > @longest,
    do: {:error, "a message of #{length} bytes is too long (at most #{@longest})"}

  defp body(_socket, 0), do: {:error, "a message is empty"}

  defp body(socket, length) do
    with {:ok, json} <- exactly(socket, length),
         {:ok, %{"type" => _, "protocol" => _} = message} <- Json.decode(json, Fallback) do
      {:ok, message}
    else
      {:error, reason} -> {:error, reason}
      _other -> {:error, "a message is not a JSON object with `type` and `protocol`"}
    end
  end

  defp exactly(socket, length) do
    case :socket.recv(socket, length, [], @whole) do
      {:ok, bytes} -> {:ok, bytes}
      {:error, {:closed, _part}} -> {:error, "a message is incomplete"}
      {:error, {:timeout, _part}} -> {:error, "a message is incomplete after #{@whole} ms"}
      {:error, :timeout} -> {:error, "a message is incomplete after #{@whole} ms"}
      {:error, {reason, _part}} -> {:error, reason}
      {:error, reason} -> {:error, reason}
    end
  end
end
