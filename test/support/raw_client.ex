defmodule ExServiceMeshRouter.RawClient do
  @moduledoc """
  A client that sends exactly the bytes it is given and shows exactly those that come back, for
  tests of what a well-behaved HTTP client would hide.
  """

  import Kernel, except: [send: 2]

  @timeout 5_000

  @doc "Connects to an `http://address:port` on this machine."
  def connect(url) do
    %URI{host: host, port: port} = URI.parse(url)
    {:ok, ip} = :inet.parse_address(String.to_charlist(host))
    {:ok, socket} = :gen_tcp.connect(ip, port, [:binary, active: false, nodelay: true], @timeout)
    socket
  end

  def send(socket, bytes), do: :ok = :gen_tcp.send(socket, bytes)

  @doc "Sends, and returns everything until the other side closes."
  def exchange(url, bytes) do
    socket = connect(url)
    send(socket, bytes)
    read_to_end(socket)
  end

  def read_to_end(socket, read \\ "", timeout \\ @timeout) do
    case :gen_tcp.recv(socket, 0, timeout) do
      {:ok, bytes} -> read_to_end(socket, read <> bytes, timeout)
      {:error, :closed} -> read
    end
  end

  @doc "Returns what has come once it ends with `ending`; nothing may come after that."
  def read_until(socket, ending, read \\ "") do
    {:ok, bytes} = :gen_tcp.recv(socket, 0, @timeout)
    read = read <> bytes
    if String.ends_with?(read, ending), do: read, else: read_until(socket, ending, read)
  end

  @doc "Exactly so many bytes."
  def read(socket, count) do
    {:ok, bytes} = :gen_tcp.recv(socket, count, @timeout)
    bytes
  end
end
