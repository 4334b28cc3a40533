defmodule ExServiceMeshRouter.Listeners.SocketDir do
  @moduledoc false
  # Manages a directory for Unix sockets that only this user can enter, one per VM.
  #
  # In a world-writable directory, another user could create it first. Its name therefore has a random
  # part, it must not exist before, and it is checked again before each use: it may have been removed
  # and created again by another user. A VM removes the directories of killed VMs of its user.

  import Bitwise

  alias ExServiceMeshRouter.Gateway.Lock

  require Logger

  @prefix "exmesh-"
  # The address of a Unix socket has 108 bytes, including the final zero.
  @longest 107
  # The maximum length of the names of the directory and of a socket together.
  @room 48

  @doc "Returns the path of a socket of this name: `{:ok, path}`, or `{:error, why}` with a sentence."
  def socket(name) do
    with {:ok, directory} <- directory() do
      path = Path.join(directory, name <> ".sock")
      short = Path.join(directory, short(name) <> ".sock")
      {:ok, if(byte_size(path) <= @longest, do: path, else: short)}
    end
  end

  defp short(name), do: name |> :erlang.md5() |> Base.encode16(case: :lower) |> binary_part(0, 12)

  @doc "Returns the directory of this VM and creates it at the first call."
  def directory, do: known() || alone(fn -> known() || again() || make(bases()) end)

  # Under a lock: probes of endpoints, and gateways that start and stop, run concurrently.
  defp alone(fun), do: Lock.run(__MODULE__, fun)

  defp known do
    with {path, identity} <- Lock.get(__MODULE__),
         ^identity <- identity(path),
         do: {:ok, path},
         else: (_ -> nil)
  end

  # Identifies a directory that only its owner can enter. Anything else, such as a link to one, is nil.
  defp identity(path) do
    case File.lstat(path) do
      {:ok, %File.Stat{type: :directory, mode: mode} = stat} when (mode &&& 0o777) == 0o700 ->
        {stat.major_device, stat.inode, stat.uid}

      _other ->
        nil
    end
  end

  @doc false
  def make(bases) do
    Enum.reduce_while(bases, {:error, []}, fn base, {:error, failed} ->
      path = Path.join(base, "#{@prefix}#{System.pid()}-#{random()}")

      with true <- byte_size(base) <= @longest - @room || {:error, :enametoolong},
           :ok <- mkdir(path) do
        clean(base)
        {:halt, {:ok, path}}
      else
        {:error, reason} -> {:cont, {:error, [{base, reason} | failed]}}
      end
    end)
    |> explain()
  end

  defp explain({:ok, path}), do: {:ok, path}

  defp explain({:error, failed}) do
    reasons =
      for {base, reason} <- Enum.reverse(failed), uniq: true do
        "#{base} (#{:file.format_error(reason)})"
      end

    {:error,
     "cannot create a directory for Unix sockets in #{Enum.join(reasons, ", ")}; set " <>
       "XDG_RUNTIME_DIR to a directory that this user may write to"}
  end

  # Fails if the path exists. Only this user can write to the new directory before the chmod.
  defp mkdir(path) do
    with :ok <- File.mkdir(path),
         :ok <- File.chmod(path, 0o700),
         do: Lock.put(__MODULE__, {path, identity(path)})
  end

  # All gateways of the VM have stopped and one starts again: recreates the directory under its old
  # name, which other processes may still have.
  defp again do
    with {path, _identity} <- Lock.get(__MODULE__),
         :ok <- mkdir(path),
         do: {:ok, path},
         else: (_ -> nil)
  end

  @doc """
  Removes an old socket at a path of `socket/1` and calls the function that listens there. Other
  gateways cannot remove the directory meanwhile. Returns `{:error, reason}` if the directory belongs
  to another user now; `socket/1` then returns another one.
  """
  def listen(path, fun), do: alone(fn -> with :ok <- vacate(path), do: fun.() end)

  defp vacate(path) do
    directory = Path.dirname(path)

    if known() == {:ok, directory} do
      File.rm(path)
      :ok
    else
      mkdir(directory)
    end
  end

  defp bases do
    [System.get_env("XDG_RUNTIME_DIR"), System.tmp_dir(), "/tmp"]
    |> Enum.filter(&(is_binary(&1) and &1 != ""))
    |> Enum.uniq()
  end

  defp random, do: :rand.uniform(0xFFFFFF) |> Integer.to_string(36) |> String.downcase()

  @doc "Removes the directory of this VM if it has no sockets."
  def forget do
    alone(fn -> with {:ok, path} <- known(), do: File.rmdir(path) end)
    :ok
  end

  @doc false
  def clean(base) do
    for path <- Path.wildcard(Path.join(base, @prefix <> "*")), abandoned?(path) do
      Logger.debug("removing #{path}, left behind by a VM that was killed")
      # Not recursively: root must not follow directories that other users can write to.
      for name <- ls(path), do: path |> Path.join(name) |> File.rm()
      File.rmdir(path)
    end
  end

  defp ls(path), do: with({:ok, names} <- File.ls(path), do: names, else: (_ -> []))

  # The pid may be reused, or the VM may run in another container: sockets that accept are in use, too.
  # Directories of other users stay.
  defp abandoned?(path) do
    with [pid, _random] <-
           path |> Path.basename() |> String.replace_prefix(@prefix, "") |> String.split("-"),
         {_device, _inode, uid} <- identity(path),
         {_path, {_, _, ^uid}} <- Lock.get(__MODULE__),
         false <- pid == System.pid(),
         false <- File.dir?("/proc/#{pid}"),
         {:ok, files} <- File.ls(path) do
      not Enum.any?(files, &answers?(Path.join(path, &1)))
    else
      _ -> false
    end
  end

  defp answers?(path) do
    case :gen_tcp.connect({:local, path}, 0, [:local], 500) do
      {:ok, socket} ->
        :gen_tcp.close(socket)
        true

      {:error, reason} ->
        reason not in [:econnrefused, :enoent, :enotsock]
    end
  end
end
