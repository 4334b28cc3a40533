defmodule ExServiceMeshRouter.SocketDirectory do
  @moduledoc false
  # A directory for Unix sockets that only this user can enter: who may open a socket in it is this
  # user, whatever the mode of the socket itself. It is there as long as this process.

  use GenServer

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  @doc "The path of a socket of that name in the gateway's directory."
  def path(name, socket), do: name |> process_name() |> GenServer.call(:path) |> Path.join(socket)

  defp process_name(name), do: Module.concat(name, SocketDirectory)

  @impl true
  def init(_config) do
    Process.flag(:trap_exit, true)

    case create() do
      {:ok, path} -> {:ok, path}
      {:error, reason} -> {:stop, {:shutdown, {:socket_directory, reason}}}
    end
  end

  @impl true
  def handle_call(:path, _from, path), do: {:reply, path, path}

  @impl true
  def handle_info(_other, path), do: {:noreply, path}

  @impl true
  def terminate(_reason, path), do: File.rm_rf(path)

  # The path of a Unix socket has room for 107 bytes, and temporary directories can be long.
  @room 80

  # A name that is taken is an error and not a reason to use what is there: it may be a stranger's.
  defp create do
    unique = Integer.to_string(:rand.uniform(0xFFFFFF), 36) |> String.downcase()
    path = Path.join(parent(), "mesh-#{System.pid()}-#{unique}")
    with :ok <- File.mkdir(path), :ok <- File.chmod(path, 0o700), do: {:ok, path}
  end

  defp parent do
    [System.get_env("XDG_RUNTIME_DIR"), System.tmp_dir(), "/tmp"]
    |> Enum.find("/tmp", &(is_binary(&1) and byte_size(&1) < @room and writable?(&1)))
  end

  defp writable?(path),
    do: match?({:ok, %File.Stat{type: :directory, access: :read_write}}, File.stat(path))
end
