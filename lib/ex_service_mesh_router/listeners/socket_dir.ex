defmodule ExServiceMeshRouter.Listeners.SocketDir do
  @moduledoc false
  # A directory for Unix sockets that only this user can enter, one for each VM.
  #
  # Its name has a random part and it must not have existed: in a directory that everybody may write
  # to, somebody else could have made it. For the same reason it is looked at anew before each use:
  # it may have been cleaned away and made again by a stranger. What a VM of this user leaves behind
  # that was killed is removed by the next one.

  import Bitwise

  alias ExServiceMeshRouter.Gateway.Lock

  require Logger

  @prefix "exmesh-"
  # A Unix socket's address has 108 bytes, the last of them a zero.
  @longest 107
  # What of these the names of the directory and of a socket take at most.
  @room 48

  @doc "The path of a socket of this name, or `{:error, why}`, a sentence, where there can be none."
  def socket(name) do
    with {:ok, directory} <- directory() do
      path = Path.join(directory, name <> ".sock")
      short = Path.join(directory, short(name) <> ".sock")
      {:ok, if(byte_size(path) <= @longest, do: path, else: short)}
    end
  end

  defp short(name), do: name |> :erlang.md5() |> Base.encode16(case: :lower) |> binary_part(0, 12)

  @doc "The directory of this VM, made when it is first asked for."
  def directory, do: known() || alone(fn -> known() || again() || make(bases()) end)

  # One at a time: endpoints are probed at once, and gateways come and go.
  defp alone(fun), do: Lock.run(__MODULE__, fun)

  defp known do
    with {path, identity} <- Lock.get(__MODULE__),
         ^identity <- identity(path),
         do: {:ok, path},
         else: (_ -> nil)
  end

  # What a directory is that only its owner can enter, and nothing else, such as a link to one.
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
     "no directory for Unix sockets can be made in #{Enum.join(reasons, ", ")}; set " <>
       "XDG_RUNTIME_DIR to a directory that this user may write to"}
  end

  # A name that is taken is an error. In between nobody else can have put anything into it, for it
  # was made by us.
  defp mkdir(path) do
    with :ok <- File.mkdir(path),
         :ok <- File.chmod(path, 0o700),
         do: Lock.put(__MODULE__, {path, identity(path)})
  end

  # All gateways of the VM have left it, and now one is back. Those that still have its name from before
  # must find it under that.
  defp again do
    with {path, _identity} <- Lock.get(__MODULE__),
         :ok <- mkdir(path),
         do: {:ok, path},
         else: (_ -> nil)
  end

  @doc """
  Makes a path of `socket/1` free, and calls the function that listens there; no gateway takes the
  directory away in between. `{:error, reason}` if the directory is not ours any more: `socket/1` then
  has another one.
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

  @doc "Removes the directory of this VM if no socket is in it any more."
  def forget do
    alone(fn -> with {:ok, path} <- known(), do: File.rmdir(path) end)
    :ok
  end

  @doc false
  def clean(base) do
    for path <- Path.wildcard(Path.join(base, @prefix <> "*")), abandoned?(path) do
      Logger.debug("removing #{path}, left behind by a VM that is gone")
      # Sockets only, and nothing below: who is root must not walk where others can write.
      for name <- ls(path), do: path |> Path.join(name) |> File.rm()
      File.rmdir(path)
    end
  end

  defp ls(path), do: with({:ok, names} <- File.ls(path), do: names, else: (_ -> []))

  # A process of that number may be another one, or in another container: what answers is alive,
  # too. Of other users nothing is touched.
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
