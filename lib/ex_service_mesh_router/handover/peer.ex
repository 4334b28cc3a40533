defmodule ExServiceMeshRouter.Handover.Peer do
  @moduledoc false
  # Connects to Unix sockets, and tells which process is at the other end of one. The kernel records
  # user and process id at the connection (SO_PEERCRED of Linux), so a client cannot lie about them.

  @sol_socket 1
  @so_peercred 17

  @doc "Returns the process and the user at the other end: `{:ok, %{pid: pid, uid: uid}}`."
  def of(socket) do
    case :socket.getopt_native(socket, {@sol_socket, @so_peercred}, 12) do
      {:ok, <<pid::native-32, uid::native-32, _gid::native-32>>} -> {:ok, %{pid: pid, uid: uid}}
      {:ok, _other} -> {:error, :enotsup}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc """
  Returns the user of this process as others see it. Not from /proc, which shows root as the owner of
  a program that has capabilities.
  """
  def own_uid do
    address = %{family: :local, path: <<0, "exmesh-", :rand.bytes(12)::binary>>}

    with {:ok, listener} <- :socket.open(:local, :stream, :default),
         :ok <- :socket.bind(listener, address),
         :ok <- :socket.listen(listener, 1),
         {:ok, client} <- :socket.open(:local, :stream, :default),
         :ok <- :socket.connect(client, address),
         peer = of(client),
         :ok <- :socket.close(client),
         :ok <- :socket.close(listener),
         {:ok, %{uid: uid}} <- peer do
      {:ok, uid}
    end
  end

  @doc "Connects to the socket at a path."
  def connect(path) do
    {:ok, socket} = :socket.open(:local, :stream, :default)

    case :socket.connect(socket, %{family: :local, path: path}, 1_000) do
      :ok ->
        {:ok, socket}

      {:error, reason} ->
        :socket.close(socket)
        {:error, reason}
    end
  end

  @doc "Returns the name of a user, or the number if the system has no name for it."
  def user(uid) do
    with {:ok, text} <- File.read("/etc/passwd"),
         [_, name] <- Regex.run(~r/^([^:\n]+):[^:\n]*:#{uid}:/m, text),
         do: name,
         else: (_ -> Integer.to_string(uid))
  end
end
