defmodule ExServiceMeshRouter.Listeners.BanditTransport do
  @moduledoc false
  # `ThousandIsland.Transports.TCP` with IP addresses for connections of a Unix socket: the client's
  # while the endpoint handles a request, the gateway's otherwise (for telemetry).
  #
  # Bandit handles the requests of a connection one after another in its process, so the process
  # dictionary has the client of the current request.

  alias ExServiceMeshRouter.RemoteIp

  @tcp ThousandIsland.Transports.TCP
  @client {__MODULE__, :client}

  @doc "Calls the function while the connection of this process has the client's address."
  def with_client(ip, fun) do
    Process.put(@client, ip)
    fun.()
  after
    Process.delete(@client)
  end

  def peername(socket) do
    case {apply(@tcp, :peername, [socket]), Process.get(@client)} do
      {{:ok, {:local, _path}}, nil} -> {:ok, RemoteIp.gateway()}
      {{:ok, _peer}, ip} when is_tuple(ip) -> {:ok, {ip, 0}}
      {result, _client} -> result
    end
  end

  # A listening socket has no peer and keeps its own address.
  def sockname(socket) do
    case {apply(@tcp, :sockname, [socket]), apply(@tcp, :peername, [socket])} do
      {{:ok, {:local, _path}}, {:ok, _peer}} -> {:ok, RemoteIp.gateway()}
      {result, _peer} -> result
    end
  end

  # The other callbacks of all versions of `ThousandIsland.Transport`.
  for {name, arity} <- [
        listen: 2,
        accept: 1,
        handshake: 1,
        handshake: 2,
        upgrade: 2,
        controlling_process: 2,
        recv: 3,
        send: 2,
        sendfile: 4,
        getopts: 2,
        setopts: 2,
        shutdown: 2,
        close: 1,
        peercert: 1,
        secure?: 0,
        getstat: 1,
        negotiated_protocol: 1,
        connection_information: 1
      ] do
    arguments = Macro.generate_arguments(arity, __MODULE__)

    def unquote(name)(unquote_splicing(arguments)),
      do: apply(@tcp, unquote(name), unquote(arguments))
  end
end
