defmodule ExServiceMeshRouter.Handover.Directory do
  @moduledoc false
  # Checks that only this user can enter the directory of the handover's socket: the gateway offers its
  # listening sockets there, and a new VM takes over what it finds there.

  import Bitwise

  alias ExServiceMeshRouter.Handover.Peer

  @doc "Creates the directory if only it is missing, and checks it: `:ok` or `{:error, sentence}`."
  def check(path) do
    directory = Path.dirname(path)

    with :ok <- create(directory), {:ok, uid} <- own_uid(), do: check(directory, path, uid)
  end

  defp create(directory) do
    case File.mkdir(directory) do
      # Before the chmod, it is empty.
      :ok -> File.chmod(directory, 0o700)
      {:error, :eexist} -> :ok
      {:error, :enoent} -> {:error, "#{Path.dirname(directory)} does not exist; create it"}
      {:error, reason} -> {:error, "cannot create #{directory}: #{:file.format_error(reason)}"}
    end
  end

  defp own_uid do
    with {:error, reason} <- Peer.own_uid(),
         do: {:error, "the system does not tell the user of a connection (#{reason}); use Linux"}
  end

  defp check(directory, path, uid) do
    case File.lstat(directory) do
      {:ok, %{type: :directory, uid: ^uid, mode: mode}} when (mode &&& 0o077) == 0 ->
        socket(path)

      {:ok, %{type: :directory, uid: ^uid, mode: mode}} ->
        mode = Integer.to_string(mode &&& 0o777, 8)

        {:error,
         "other users can enter #{directory} (mode #{mode}); run `chmod 700 #{directory}`, or use " <>
           "a directory of its own"}

      {:ok, %{type: :directory, uid: other}} ->
        {:error,
         "#{directory} belongs to user #{Peer.user(other)}, not to #{Peer.user(uid)}, as whom this " <>
           "VM runs; use a directory of that user"}

      {:ok, _other} ->
        {:error, "#{directory} is not a directory"}

      {:error, reason} ->
        {:error, "cannot use #{directory}: #{:file.format_error(reason)}"}
    end
  end

  @type_bits 0o170000
  @socket 0o140000

  defp socket(path) do
    case File.lstat(path) do
      {:ok, %{mode: mode}} when (mode &&& @type_bits) == @socket ->
        :ok

      {:error, :enoent} ->
        :ok

      {:ok, %{type: type}} ->
        {:error, "#{path} is not a socket (type #{type}); remove it, or use another path"}

      {:error, reason} ->
        {:error, "cannot use #{path}: #{:file.format_error(reason)}"}
    end
  end

  @doc "Identifies the file at a path, or `nil`."
  def identity(path) do
    with {:ok, stat} <- File.lstat(path), do: {stat.major_device, stat.inode}, else: (_ -> nil)
  end
end
