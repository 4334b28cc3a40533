defmodule Demo.HTTP.Server do
  @moduledoc """
  A small HTTP/1.1 server on nothing but OTP, so that the gateway can be tried and tested without
  a single package. It stands in for a Phoenix endpoint; it is not meant to be one.

  It keeps connections alive, answers pipelined requests in order, reads bodies of any size as
  streams (content-length and chunked, `Expect: 100-continue` included), streams answers, and hands
  a connection over after an upgrade.

      {:ok, server} = Demo.HTTP.Server.start_link(handler: &MyHandler.call/1)
      Demo.HTTP.Server.url(server)
      #=> "http://127.0.0.1:41234"

  ## Options

    * `:handler` (required) - a function from `Demo.HTTP.Request` to `{answer, request}`; see
      `t:Demo.HTTP.Response.t/0` for the answers. It runs in the connection's own process.
    * `:ip` (default `{127, 0, 0, 1}`) - an address, or `{:local, path}` for a Unix socket.
    * `:port` (default 0) - 0 picks a free one.
    * `:idle_timeout` (milliseconds, default 60_000) - how long a silent client is kept.
    * `:name` - as in `GenServer.start_link/3`.

  Stopping the server ends its connections, too.
  """

  use GenServer

  alias Demo.HTTP.Connection

  @acceptors 4

  @type option ::
          {:handler, (Demo.HTTP.Request.t() -> {Demo.HTTP.Response.t(), Demo.HTTP.Request.t()})}
          | {:ip, :inet.socket_address() | {:local, Path.t()}}
          | {:port, :inet.port_number()}
          | {:idle_timeout, timeout()}
          | {:name, GenServer.name()}

  @spec start_link([option()]) :: GenServer.on_start()
  def start_link(options) do
    GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))
  end

  @doc "The address of the server, in the form in which the gateway takes an upstream."
  @spec url(GenServer.server()) :: String.t()
  def url(server), do: GenServer.call(server, :url)

  @impl true
  def init(options) do
    handler = Keyword.fetch!(options, :handler)
    idle_timeout = Keyword.get(options, :idle_timeout, 60_000)

    with {:ok, listener} <- listen(options) do
      {:ok, tasks} = Task.Supervisor.start_link()

      for _ <- 1..@acceptors do
        accept = fn -> accept(listener, tasks, handler, idle_timeout) end
        {:ok, _} = Task.Supervisor.start_child(tasks, accept, restart: :transient)
      end

      {:ok, %{listener: listener}}
    else
      {:error, reason} -> {:stop, reason}
    end
  end

  @impl true
  def handle_call(:url, _from, state) do
    url =
      case :inet.sockname(state.listener) do
        {:ok, {:local, path}} -> "unix:#{path}"
        {:ok, {ip, port}} when tuple_size(ip) == 4 -> "http://#{:inet.ntoa(ip)}:#{port}"
        {:ok, {ip, port}} -> "http://[#{:inet.ntoa(ip)}]:#{port}"
      end

    {:reply, url, state}
  end

  defp listen(options) do
    :gen_tcp.listen(Keyword.get(options, :port, 0), [
      :binary,
      ip: Keyword.get(options, :ip, {127, 0, 0, 1}),
      active: false,
      reuseaddr: true,
      nodelay: true,
      backlog: 1024,
      buffer: 65_536,
      send_timeout: 30_000,
      send_timeout_close: true
    ])
  end

  defp accept(listener, tasks, handler, idle_timeout) do
    case :gen_tcp.accept(listener) do
      {:ok, socket} ->
        serve = fn -> Connection.serve(socket, handler, idle_timeout) end
        {:ok, pid} = Task.Supervisor.start_child(tasks, serve)
        # It fails only when the connection is over already, and then nothing is left to own.
        _ = :gen_tcp.controlling_process(socket, pid)
        accept(listener, tasks, handler, idle_timeout)

      {:error, :closed} ->
        :ok

      # The client was gone before it was accepted, or there is no file descriptor left for it.
      {:error, _reason} ->
        accept(listener, tasks, handler, idle_timeout)
    end
  end
end
