defmodule ExServiceMeshRouter.Http.Server do
  @moduledoc false
  # A small HTTP/1.1 server for the gateway's own pages: one request on each connection, no body
  # read, answers whole or streamed. It stands behind the gateway, which has checked what arrives,
  # and holds its own against those who find their way around it.
  #
  #     {Http.Server, listen: {:local, path} | {ip, port}, handler: handler}
  #
  # The handler is called with a request (Http.Request), in a process of the connection's own, and
  # returns an answer (Http.Response).

  use GenServer

  alias ExServiceMeshRouter.Http.Connection
  alias ExServiceMeshRouter.Listeners.SocketDir

  @most_connections 128

  def start_link(options),
    do: GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))

  @doc "`{ip, port}` or `{:local, path}`."
  def address(server), do: GenServer.call(server, :address)

  @impl true
  def init(options) do
    Process.flag(:trap_exit, true)

    case listen(options[:listen]) do
      {:ok, socket} ->
        most = Keyword.get(options, :connections, @most_connections)
        {:ok, connections} = Task.Supervisor.start_link(max_children: most)
        handler = Keyword.fetch!(options, :handler)
        acceptor = spawn_link(fn -> accept(socket, connections, handler) end)
        {:ok, %{socket: socket, acceptor: acceptor, listen: options[:listen]}}

      {:error, reason} ->
        {:stop, {:shutdown, {:listen, reason}}}
    end
  end

  # What a predecessor that was killed has left behind is in the way.
  defp listen({:local, path}) do
    SocketDir.listen(path, fn -> :gen_tcp.listen(0, [{:ifaddr, {:local, path}} | options()]) end)
  end

  defp listen({ip, port}),
    do: :gen_tcp.listen(port, [{:ip, ip}, {:reuseaddr, true}, {:nodelay, true} | options()])

  # The buffer is the longest line that is read.
  defp options do
    [:binary, active: false, packet: :http_bin, buffer: 65_536, backlog: 128] ++
      [send_timeout: 10_000, send_timeout_close: true]
  end

  defp accept(socket, connections, handler) do
    case :gen_tcp.accept(socket) do
      {:ok, client} ->
        serve(client, connections, handler)
        accept(socket, connections, handler)

      {:error, :closed} ->
        :ok

      # Out of file descriptors, most likely. It passes.
      {:error, _reason} ->
        Process.sleep(50)
        accept(socket, connections, handler)
    end
  end

  defp serve(client, connections, handler) do
    case Task.Supervisor.start_child(connections, Connection, :start, [handler]) do
      {:ok, pid} ->
        _ = :gen_tcp.controlling_process(client, pid)
        send(pid, {:socket, client})

      {:error, :max_children} ->
        Connection.refuse(client, 503)
    end
  end

  @impl true
  def handle_call(:address, _from, state) do
    case state.listen do
      {:local, path} ->
        {:reply, {:local, path}, state}

      {_ip, _port} ->
        {:ok, address} = :inet.sockname(state.socket)
        {:reply, address, state}
    end
  end

  @impl true
  def handle_info({:EXIT, _pid, reason}, state), do: {:stop, reason, state}

  @impl true
  def terminate(_reason, state) do
    :gen_tcp.close(state.socket)
    with {:local, path} <- state.listen, do: File.rm(path)
    :ok
  end
end
