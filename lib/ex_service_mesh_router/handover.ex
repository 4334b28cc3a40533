defmodule ExServiceMeshRouter.Handover do
  @moduledoc """
  Hands the port of a running gateway over to a new VM (`handover`, see `ExServiceMeshRouter.Config`).

  These functions ask the gateways through the socket at the configured path, from a VM of the same
  user that need not be a node: from `mix mesh.handover`, or from a release:

      bin/my_app eval 'ExServiceMeshRouter.Handover.print()'
      bin/my_app eval 'ExServiceMeshRouter.Handover.take() |> IO.inspect()'
  """

  # The socket at PATH is that of the gateway that has the port, the one at PATH.next that of a gateway that
  # waits to take over. Successor is the side of the new gateway, Offer, Session and Predecessor that of the
  # running one. The data plane must not know it: it gets descriptors.

  alias ExServiceMeshRouter.{Config, Native}
  alias ExServiceMeshRouter.Handover.{Offer, Peer, SocketFile, State, Status, Successor, Wire}

  @typedoc """
  What a gateway says of itself.

  `"state"` is `"serving"` (it has the port), `"waiting"` (for what `"missing"` lists), `"ready"` (it waits
  for `take/1`) or `"draining"`. `"handover"` describes a handover of it, or is `nil`. Further keys:
  `"pid"` (of the system), `"user"`, `"version"` of this library, `"node"`, `"addresses"`, `"since"` (when
  it began to serve), `"connections"`, `"take"` and `"stop"` as configured.
  """
  @type status :: %{String.t() => term()}

  @answer 5_000
  # A gateway takes some seconds if the other one does not answer.
  @taken 20_000

  @doc """
  Returns the gateway that has the port, and the one that waits to take over, `nil` if there is none.

  The path is the configured one by default. The error is a sentence.
  """
  @spec status(Path.t() | nil) ::
          {:ok, %{serving: status() | nil, next: status() | nil}} | {:error, String.t()}
  def status(path \\ nil) do
    with {:ok, path} <- path(path),
         {:ok, serving} <- ask(path),
         {:ok, next} <- ask(SocketFile.next(path)),
         do: {:ok, %{serving: serving, next: next}}
  end

  @doc """
  Tells the gateway that waits with `take: :manual` to take the port over. Returns when it accepts
  connections.
  """
  @spec take(Path.t() | nil) :: {:ok, status()} | {:error, String.t()}
  def take(path \\ nil) do
    with {:ok, path} <- path(path) do
      case ask(SocketFile.next(path), "take_over", @taken) do
        {:ok, nil} -> {:error, "no gateway waits to take over at #{SocketFile.next(path)}"}
        result -> result
      end
    end
  end

  @doc "Prints `status/1`."
  @spec print(Path.t() | nil) :: :ok
  def print(path \\ nil) do
    case status(path) do
      {:ok, %{serving: serving, next: next}} ->
        IO.write([
          if(serving, do: Status.text(serving), else: "no gateway offers its port there\n"),
          if(next, do: ["next: ", Status.text(next)], else: [])
        ])

      {:error, why} ->
        IO.puts("cannot ask for the handover: #{why}")
    end
  end

  defp path(nil) do
    options = Application.get_all_env(:ex_service_mesh_router)

    case options |> Keyword.delete(:included_applications) |> Config.new() do
      {:ok, %{handover: %{path: path}}} -> {:ok, path}
      {:ok, _config} -> {:error, "`handover` is not configured; pass the path of the socket"}
      {:error, error} -> {:error, Exception.message(error)}
    end
  end

  defp path(path), do: {:ok, path}

  # `{:ok, nil}` if no process listens there.
  defp ask(path, type \\ "status", timeout \\ @answer) do
    case Peer.connect(path) do
      {:ok, connection} ->
        answer = with :ok <- Wire.send(connection, type), do: Wire.recv(connection, timeout)
        :socket.close(connection)
        answer(answer, path)

      {:error, reason} when reason in [:enoent, :econnrefused] ->
        {:ok, nil}

      {:error, reason} ->
        {:error, "cannot connect to #{path}: #{:file.format_error(reason)}"}
    end
  end

  defp answer({:ok, %{"type" => "refused", "why" => why}}, _path), do: {:error, why}
  defp answer({:ok, message}, _path), do: {:ok, Map.drop(message, ["type", "protocol"])}

  defp answer({:error, :closed}, path),
    do:
      {:error,
       "the gateway at #{path} closed the connection; it belongs to another user, or ends"}

  defp answer({:error, :timeout}, path), do: {:error, "the gateway at #{path} does not answer"}
  defp answer({:error, reason}, path), do: {:error, "the gateway at #{path}: #{reason}"}

  @doc false
  # The processes that start before the data plane, and those that start after the workers.
  def first(%{handover: nil}), do: []
  def first(_config), do: [Successor]

  @doc false
  def last(%{handover: nil}), do: []
  def last(_config), do: [Offer]

  @doc false
  # The sockets that the data plane gets from another gateway, for Native.open/2, or `nil`.
  def sockets(config), do: State.get(config.name, :taken)

  @doc false
  # Closes these descriptors, which the data plane has duplicated, or could not use.
  def opened(config) do
    with %{sockets: descriptors} <- State.get(config.name, :taken) do
      State.delete(config.name, :taken)
      Native.close_listeners(descriptors)
    end
  end

  @doc false
  # Whether another gateway still has the port of this one.
  defdelegate taking?(name), to: State

  @doc false
  # Describes a handover for the index, or `nil`.
  defdelegate text(name), to: State
end
