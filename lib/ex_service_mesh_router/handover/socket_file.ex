defmodule ExServiceMeshRouter.Handover.SocketFile do
  @moduledoc false
  # The socket at PATH, or at PATH.next until it is moved there. Moving replaces the file of another gateway in
  # one step, so there is always a socket at PATH. A gateway removes no file but its own.

  alias ExServiceMeshRouter.Handover.{Directory, Peer, Wire}

  @enforce_keys [:path, :listener, :identity]
  defstruct @enforce_keys

  @backlog 16
  @answer 1_000

  def next(path), do: path <> ".next"

  @doc "Listens on PATH.next: `{:ok, place}` or `{:error, sentence}`."
  def open_next(path), do: listen(next(path))

  @doc "Listens on PATH."
  def open(path) do
    # What is moved there replaces what another program may have put there.
    with :ok <- Directory.check(path),
         {:ok, place} <- listen(path <> ".new"),
         do: {:ok, move(place, path)}
  end

  defp listen(path) do
    with :ok <- Directory.check(path) do
      File.rm(path)
      {:ok, socket} = :socket.open(:local, :stream, :default)

      with :ok <- :socket.bind(socket, %{family: :local, path: path}),
           :ok <- File.chmod(path, 0o600),
           :ok <- :socket.listen(socket, @backlog) do
        {:ok, %__MODULE__{path: path, listener: socket, identity: Directory.identity(path)}}
      else
        {:error, reason} ->
          :socket.close(socket)
          {:error, "cannot listen on #{path}: #{:file.format_error(reason)}"}
      end
    end
  end

  @doc "Moves the socket from PATH.next to PATH."
  def promote(place), do: move(place, String.replace_suffix(place.path, ".next", ""))

  defp move(%{path: path} = place, path), do: place

  defp move(place, path) do
    case File.rename(place.path, path) do
      :ok -> %{place | path: path}
      # Removed. The next check listens anew.
      {:error, _reason} -> %{place | path: path, identity: nil}
    end
  end

  @doc """
  Returns whose socket is at PATH: `:mine`, that of this place; `{:other, pid}`, of a gateway that serves; or
  `:none`.
  """
  def owner(place, path) do
    cond do
      place != nil and mine?(place) -> :mine
      pid = serves(path) -> {:other, pid}
      true -> :none
    end
  end

  defp mine?(place),
    do: place.identity != nil and Directory.identity(place.path) == place.identity

  defp serves(path) do
    with {:ok, connection} <- Peer.connect(path) do
      answer = with :ok <- Wire.send(connection, "status"), do: Wire.recv(connection, @answer)

      :socket.close(connection)
      serving(answer)
    else
      {:error, _reason} -> nil
    end
  end

  defp serving({:ok, %{"pid" => pid, "state" => "serving"}}) when is_integer(pid), do: pid
  defp serving(_other), do: nil

  def close(nil), do: :ok
  def close(place), do: :socket.close(place.listener)

  @doc "Closes the socket and removes its file."
  def remove(nil), do: :ok

  def remove(place) do
    if mine?(place), do: File.rm(place.path)
    close(place)
  end
end
