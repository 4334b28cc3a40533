defmodule ExServiceMeshRouter.NifBuild.Target do
  @moduledoc false
  # Determines which library the running VM can load: the Rust target triple, the version of its C
  # library, and its NIF version.
  #
  # The C library is the one that the VM has mapped. On Nix or with a bundled Erlang, the system's C
  # library is another one.

  @enforce_keys [:triple, :nif]
  defstruct [:triple, :glibc, :nif]

  @cpus %{
    "amd64" => "x86_64",
    "arm64" => "aarch64",
    "armv7l" => "armv7",
    "riscv64" => "riscv64gc"
  }

  def running do
    libc = mapped_libc()

    %__MODULE__{
      triple: triple(to_string(:erlang.system_info(:system_architecture)), libc),
      glibc: glibc(libc),
      nif: to_string(:erlang.system_info(:nif_version))
    }
  end

  @doc """
  Returns the Rust target triple of an Erlang `architecture`. On Linux, an Erlang built for musl may call
  itself `gnu`, so the mapped C library takes precedence.
  """
  def triple(architecture, libc \\ nil) do
    [cpu | rest] = String.split(architecture, "-")
    cpu = Map.get(@cpus, cpu, cpu)

    case system(Enum.join(rest, "-")) do
      {:linux, abi} -> "#{cpu}-unknown-linux-#{abi(libc, abi)}"
      :darwin -> "#{cpu}-apple-darwin"
      :other -> architecture
    end
  end

  defp system(rest) do
    cond do
      match = Regex.run(~r/linux-?(\w*)$/, rest) -> {:linux, Enum.at(match, 1)}
      rest =~ "darwin" -> :darwin
      true -> :other
    end
  end

  defp abi({:musl, _path}, abi), do: String.replace(abi, "gnu", "musl")
  defp abi({:glibc, _path}, abi), do: String.replace(abi, "musl", "gnu")
  defp abi(nil, ""), do: "gnu"
  defp abi(nil, abi), do: abi

  defp mapped_libc do
    case File.read("/proc/self/maps") do
      {:ok, maps} -> libc(maps)
      {:error, _no_linux} -> nil
    end
  end

  @doc "Finds the C library in the text of `/proc/self/maps`."
  def libc(maps) do
    cond do
      match = Regex.run(~r{ (/\S*/(?:ld-musl-|libc\.musl-)\S*)$}m, maps) ->
        {:musl, Enum.at(match, 1)}

      match = Regex.run(~r{ (/\S*/libc(?:\.so\.6|-\d\.\d+\.so))$}m, maps) ->
        {:glibc, Enum.at(match, 1)}

      true ->
        nil
    end
  end

  # The library contains the line that it prints when run as a program.
  defp glibc({:glibc, path}) do
    with {:ok, library} <- File.read(path),
         [_, version] <- Regex.run(~r/GNU C Library [^\n]* version (\d+\.\d+)/, library) do
      version
    else
      _unreadable -> nil
    end
  end

  defp glibc(_other), do: nil
end
