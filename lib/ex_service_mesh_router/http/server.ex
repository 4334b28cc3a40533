defmodule ExServiceMeshRouter.Http.Server do
  @moduledoc false
  # A small HTTP/1.1 server for the gateway's own pages, the demo and the tests. Must not know what it
  # serves. The size of a head, its time, and the number of connections are bounded; only the handler
  # reads a body.
  #
  #     {Http.Server, handler: &{{200, [], "hello"}, &1}}
  #
  #   * `:handler` - gets an Http.Request and returns `{response, request}` (see Http.Response), in the
  #     process of the connection
  #   * `:ip`, `:port` (default a free port of 127.0.0.1) - where to listen; `ip: {:local, path}` for a
  #     Unix socket
  #   * `:keep_alive` (default `true`) - `false` for one request per connection
  #   * `:timeout` (default 60,000) - milliseconds until a head is complete, including idle time
  #   * `:name` - as in `GenServer.start_link/3`

  use GenServer

  alias ExServiceMeshRouter.Http.{Connection, Wire}
  alias ExServiceMeshRouter.Config.Upstream

  @max_connections 1_024

  def start_link(options),
    do: GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))

  @doc "Returns the address in the form of an upstream: `http://127.0.0.1:4000`, `unix:/path`."
  def url(server), do: GenServer.call(server, :url)

  @impl true
  def init(options) do
    # For terminate/2.
    Process.flag(:trap_exit, true)
    defaults = %{ip: {127, 0, 0, 1}, port: 0, keep_alive: true, timeout: 60_000}
    options = Map.merge(defaults, Map.new(options))
    listen = [ip: options.ip, reuseaddr: true, nodelay: true, backlog: 1_024]

    case :gen_tcp.listen(options.port, listen ++ Wire.socket_options()) do
      {:ok, listener} ->
        {:ok, connections} = Task.Supervisor.start_link(max_children: @max_connections)
        spawn_link(fn -> accept(listener, connections, options) end)
        {:ok, listener}

      {:error, reason} ->
        {:stop, {:shutdown, reason}}
    end
  end

  defp accept(listener, connections, options) do
    case :gen_tcp.accept(listener) do
      {:ok, socket} -> serve(socket, connections, options)
      {:error, :closed} -> exit(:normal)
      # Probably, no file descriptor is free.
      {:error, _reason} -> Process.sleep(50)
    end

    accept(listener, connections, options)
  end

  defp serve(socket, connections, options) do
    with {:ok, pid} <-
           Task.Supervisor.start_child(connections, Connection, :serve, [socket, options]),
         :ok <- :gen_tcp.controlling_process(socket, pid) do
      :ok
    else
      # Too many connections, or the client has disconnected.
      {:error, _reason} ->
        :gen_tcp.send(socket, "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n")
        :gen_tcp.close(socket)
    end
  end

  @impl true
  def handle_call(:url, _from, listener) do
    upstream =
      case :inet.sockname(listener) do
        {:ok, {:local, path}} -> Upstream.unix(path)
        {:ok, {ip, port}} -> Upstream.tcp(ip, port)
      end

    {:reply, Upstream.to_string(upstream), listener}
  end

  @impl true
  def handle_info({:EXIT, _pid, reason}, listener), do: {:stop, reason, listener}

  @impl true
  def terminate(_reason, listener) do
    with {:ok, {:local, path}} <- :inet.sockname(listener), do: File.rm(path)
    :gen_tcp.close(listener)
  end
end
