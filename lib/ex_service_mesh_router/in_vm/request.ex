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

  @doc "Starts the process of a call. `server` is what Shape returns, with `:ancestors` and `:label`."
  def start(call, server),
    do: :erlang.spawn_opt(__MODULE__, :init, [call, server], min_heap_size: @heap_words)

  @doc false
  def init(call, server) do
    case Native.call_take(call) do
      {ref, method, target, headers, version, body} ->
        Process.put(:"$initial_call", {__MODULE__, :init, 2})
        Process.put(:"$ancestors", server.ancestors)
        Process.put(:"$process_label", server.label)
        disconnects(server, call)
        run(server, transport(call, ref, {method, target, headers}, version, body))

      # The client has gone.
      :closed ->
        :closed
    end
  end

  # As Cowboy, or as Bandit, which traps exits.
  defp disconnects(%{on_disconnect: :exit, dispatcher: dispatcher}, call),
    do: Native.call_watch(call, dispatcher)

  defp disconnects(_server, _call), do: Process.flag(:trap_exit, true)

  defp run(server, %{ref: ref, client: client, request: {_, _, headers}} = transport) do
    secure? = ForwardedReader.scheme(headers) == :https
    span = %{telemetry_span_context: ref}
    arguments = [transport, server.plug, span, {secure?, client}, server.options]
    apply(Bandit.Pipeline, :run, arguments)
    # Only a response that has not ended fails.
    Native.call_fail(transport.call)
  end

  defp transport(call, ref, {method, target, headers}, version, body) do
    %Transport{
      call: call,
      ref: ref,
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
