defmodule ExServiceMeshRouter.Gateway.PortUse do
  @moduledoc false
  # Finds the process that listens on a port. On Linux, the socket tables in /proc give an inode, and
  # the process that has the inode open is the holder. Processes of other users are not visible.

  @tables ["/proc/net/tcp", "/proc/net/tcp6"]
  @listening "0A"

  @doc "Returns whether the gateway could listen on a port."
  def free?(config, port) do
    Enum.all?(config.ips, fn ip ->
      family = if tuple_size(ip) == 8, do: [:inet6, {:ipv6_v6only, true}], else: [:inet]

      case :gen_tcp.listen(port, family ++ [{:ip, ip}, {:reuseaddr, true}]) do
        {:ok, socket} ->
          :gen_tcp.close(socket)
          true

        {:error, :eaddrinuse} ->
          false

        # No IPv6, or no permission: the port is not in use.
        {:error, _reason} ->
          true
      end
    end)
  end

  @doc "Returns the process that listens on a port: `%{pid: pid | nil, command: text}`."
  def holder(port) do
    inodes = @tables |> Enum.flat_map(&inodes(&1, port)) |> MapSet.new(&"socket:[#{&1}]")

    case Enum.find(processes(), &has?(&1, inodes)) do
      nil -> %{pid: nil, command: nil}
      pid -> %{pid: String.to_integer(pid), command: command(pid)}
    end
  end

  # sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
  defp inodes(table, port) do
    hex = port |> Integer.to_string(16) |> String.pad_leading(4, "0")

    with {:ok, text} <- File.read(table) do
      for line <- String.split(text, "\n"),
          [_, local, _, @listening, _, _, _, _, _, inode | _] <- [String.split(line)],
          String.ends_with?(local, ":" <> hex),
          do: inode
    else
      _ -> []
    end
  end

  defp processes do
    with {:ok, names} <- File.ls("/proc"),
         do: Enum.filter(names, &(&1 =~ ~r/\A\d+\z/)),
         else: (_ -> [])
  end

  defp has?(pid, inodes) do
    directory = "/proc/#{pid}/fd"

    with {:ok, descriptors} <- File.ls(directory) do
      Enum.any?(descriptors, fn descriptor ->
        case File.read_link(Path.join(directory, descriptor)) do
          {:ok, target} -> target in inodes
          {:error, _closed_meanwhile} -> false
        end
      end)
    else
      _ -> false
    end
  end

  @longest 60

  # Arguments can contain secrets; the first two identify the program.
  defp command(pid) do
    with {:ok, text} <- File.read("/proc/#{pid}/cmdline"),
         [program | arguments] <- String.split(text, "\0", trim: true) do
      [Path.basename(program) | Enum.take(arguments, 2)]
      |> Enum.join(" ")
      |> String.slice(0, @longest)
    else
      _ -> "?"
    end
  end
end
