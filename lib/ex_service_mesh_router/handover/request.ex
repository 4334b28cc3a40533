defmodule ExServiceMeshRouter.Handover.Request do
  @moduledoc false
  # Asks the gateway at a path for its listening sockets.

  alias ExServiceMeshRouter.Native
  alias ExServiceMeshRouter.Handover.{Directory, Peer, Wire}

  @answer 5_000
  # A gateway whose offering process restarts, and one that is being killed, refuse or close connections for a
  # moment.
  @tries 10
  @pause 50
  @gone [:closed, :econnreset, :epipe]

  @doc """
  Returns `{:ok, taken}` with the connection, the descriptors and what the gateway says of itself; `:none` or
  `:stale` (there is a file) if no gateway answers there; or `{:error, sentence}`.
  """
  def take(%{handover: %{path: path}} = config) do
    with :ok <- Directory.check(path), do: try_take(path, config, @tries)
  end

  defp try_take(path, config, tries) do
    case once(path, config) do
      {:again, _answer} when tries > 1 ->
        Process.sleep(@pause)
        try_take(path, config, tries - 1)

      {:again, answer} ->
        answer

      answer ->
        answer
    end
  end

  defp once(path, config) do
    case Peer.connect(path) do
      {:ok, connection} -> connection |> ask(config) |> close_unless_taken(connection)
      {:error, :enoent} -> :none
      {:error, :econnrefused} -> {:again, :stale}
      {:error, :timeout} -> {:error, no_answer(path)}
      {:error, :eprototype} -> {:error, "#{path} is a socket of another type; use another path"}
      {:error, reason} -> {:error, "cannot connect to #{path}: #{:file.format_error(reason)}"}
    end
  end

  defp close_unless_taken({:ok, taken}, _connection), do: {:ok, taken}

  defp close_unless_taken(result, connection) do
    :socket.close(connection)
    result
  end

  defp ask(connection, config) do
    path = config.handover.path

    with {:ok, peer} <- same_user(connection),
         :ok <- Wire.send(connection, "take", wanted(config)),
         {:ok, message, descriptors} <- Wire.recv_descriptors(connection, @answer) do
      result = understand(message, descriptors, peer, config)
      unless match?({:ok, _}, result), do: Native.close_listeners(descriptors)
      with {:ok, taken} <- result, do: {:ok, Map.put(taken, :connection, connection)}
    else
      {:error, :timeout} ->
        {:error, no_answer(path)}

      {:error, reason} when reason in @gone ->
        {:again, {:error, closes(path)}}

      {:error, reason} ->
        {:error, "the process that listens on #{path} sends what is wrong: #{reason}"}

      {:other_user, uid} ->
        {:error, "user #{Peer.user(uid)} listens on #{path}"}
    end
  end

  defp no_answer(path),
    do: "the process that listens on #{path} does not answer; stop it (`fuser #{path}` shows it)"

  defp closes(path),
    do: "the process that listens on #{path} closes connections without an answer"

  defp same_user(connection) do
    with {:ok, %{uid: uid} = peer} <- Peer.of(connection),
         {:ok, own} <- Peer.own_uid(),
         do: if(uid == own, do: {:ok, peer}, else: {:other_user, uid})
  end

  defp wanted(config) do
    %{
      version: version(),
      pid: own_pid(),
      gateway: config.name,
      port: config.port,
      ips: config.native.ips
    }
  end

  def own_pid, do: String.to_integer(System.pid())

  def version do
    case Application.spec(:ex_service_mesh_router, :vsn) do
      nil -> ""
      version -> to_string(version)
    end
  end

  defp understand(%{"type" => "refused", "why" => why}, _descriptors, peer, _config)
       when is_binary(why),
       do: {:error, "process #{peer.pid} does not hand its port over: #{why}"}

  defp understand(%{"type" => "stopped"}, _descriptors, _peer, _config), do: :none

  defp understand(%{"protocol" => protocol} = message, _descriptors, peer, _config)
       when protocol != 1,
       do: {:error, "process #{peer.pid} (#{other(message)}); stop it, then start this one"}

  defp understand(%{"type" => "sockets", "ips" => ips} = message, descriptors, peer, config)
       when descriptors != [] and is_list(ips) do
    {:ok,
     %{
       peer: peer.pid,
       services: texts(message["services"]),
       # For Native.open/2.
       native: %{
         sockets: descriptors,
         ips: config.native.ips -- ips,
         keep_queue: message["keep_queue"] == true,
         accepting: false
       }
     }}
  end

  defp understand(%{"type" => "sockets"}, _descriptors, peer, _config),
    do: {:error, "process #{peer.pid} sent no listening sockets"}

  defp understand(%{"type" => type}, _descriptors, peer, _config),
    do: {:error, "process #{peer.pid} answered with an unknown message (#{inspect(type)})"}

  @doc "Says which version of the library sent a message of another protocol."
  def other(message) do
    version = if is_binary(message["version"]), do: message["version"], else: "?"

    "ex_service_mesh_router #{inspect(version)} speaks version #{inspect(message["protocol"])} of the " <>
      "handover, ex_service_mesh_router #{inspect(version())} speaks version #{Wire.protocol()}"
  end

  defp texts(list) when is_list(list), do: Enum.filter(list, &is_binary/1)
  defp texts(_other), do: []
end
