defmodule ExServiceMeshRouter.InVm.Request do
  @moduledoc false
  # The process of one request: takes the call from the data plane and runs Bandit's pipeline for it. The
  # data plane monitors it and answers 500 if it ends without a response.
  #
  # The call comes from the gateway alone, so its forwarded fields are those that the gateway wrote.

  alias ExServiceMeshRouter.InVm.Transport
  alias ExServiceMeshRouter.{Native, RemoteIp}
  alias ExServiceMeshRouter.Plugs.ForwardedReader

  # Room for the conn and the fields of a usual request, so that few requests need a garbage collection.
  @heap_words 2586

  # Between the exit signal and the kill for a request whose client has gone, as in Cowboy.
  @grace 5_000

  @doc "Starts the process of a call. `server` is what Shape returns, with `:ancestors` and `:label`."
  def start(call, server),
    do: :erlang.spawn_opt(__MODULE__, :init, [call, server], min_heap_size: @heap_words)

  @doc false
  def init(call, server) do
    case Native.call_take(call) do
      {_call, method, target, headers, version, body, on_disconnect} ->
        Process.put(:"$initial_call", {__MODULE__, :init, 2})
        Process.put(:"$ancestors", server.ancestors)
        Process.put(:"$process_label", server.label)
        disconnects(on_disconnect, call)
        run(server, transport(call, {method, target, headers}, version, body))

      # The client has gone.
      :closed ->
        :closed
    end
  end

  # As Bandit, which traps exits.
  defp disconnects(:ignore, _call), do: Process.flag(:trap_exit, true)

  # As Cowboy. The process of the request runs the plug and does not read its messages.
  defp disconnects(:exit, call) do
    request = self()
    spawn(fn -> watch(call, request) end)
  end

  defp watch(call, request) do
    monitor = Process.monitor(request)
    Native.call_watch(call)

    receive do
      {^call, :closed} -> Process.exit(request, :shutdown)
      {:DOWN, ^monitor, :process, _, _} -> exit(:normal)
    end

    receive do
      {:DOWN, ^monitor, :process, _, _} -> :ok
    after
      @grace -> Process.exit(request, :kill)
    end
  end

  defp run(server, %{client: client, request: {_, _, headers}} = transport) do
    secure? = ForwardedReader.scheme(headers) == :https
    # A call has no connection, whose span this would be.
    span = %{telemetry_span_context: make_ref()}
    arguments = [transport, server.plug, span, {secure?, client}, server.options]

    case apply(Bandit.Pipeline, :run, arguments) do
      {:ok, %Transport{state: :sent}} -> :ok
      # Only a response that has not ended fails.
      _ -> Native.call_fail(transport.call)
    end
  end

  defp transport(call, {method, target, headers}, version, body) do
    %Transport{
      call: call,
      request: {method, target(target, headers), headers},
      version: version,
      client: client(headers),
      unread: if(body == {:length, 0}, do: :none, else: body),
      continue?: body != :none and version != :"HTTP/1.0" and continue?(headers)
    }
  end

  defp client(headers), do: ForwardedReader.client(headers) || elem(RemoteIp.gateway(), 0)

  # The host and the port become those of the conn.
  defp target(path, headers) do
    path = if path == "*", do: :*, else: path

    case ForwardedReader.host(headers) do
      nil -> {nil, nil, nil, path}
      host -> {nil, host, ForwardedReader.port(headers), path}
    end
  end

  defp continue?(headers) do
    case List.keyfind(headers, "expect", 0) do
      {_, value} -> String.downcase(value, :ascii) == "100-continue"
      nil -> false
    end
  end
end
