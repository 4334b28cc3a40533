defmodule ExServiceMeshRouter.Handover.Status do
  @moduledoc false
  # What a gateway says of itself on its socket, and how it is printed.

  alias ExServiceMeshRouter.{Gateway, Native, Readiness}
  alias ExServiceMeshRouter.Handover.{Peer, Request, State}

  # What is missing may be a long list.
  @most_missing 20

  @doc "Returns the state of this VM's gateway."
  def of(%{name: name} = config) do
    {total, _clients} = Native.connections(Gateway.ref(name))

    %{
      pid: Request.own_pid(),
      user: user(),
      version: Request.version(),
      node: node(),
      addresses: Enum.map(Gateway.addresses(name), &Gateway.text/1),
      since: State.get(name, :since),
      state: state(name),
      missing: missing(name),
      connections: total,
      handover: State.text(name),
      take: config.handover.take,
      stop: config.handover.stop
    }
  end

  defp user do
    case Peer.own_uid() do
      {:ok, uid} -> Peer.user(uid)
      {:error, _reason} -> "?"
    end
  end

  defp state(name) do
    cond do
      Gateway.draining?(name) -> :draining
      not State.taking?(name) -> :serving
      State.get(name, :ready) -> :ready
      true -> :waiting
    end
  end

  defp missing(name),
    do:
      if(state(name) == :waiting, do: Enum.take(Readiness.missing(name), @most_missing), else: [])

  @doc "Formats the answer of a gateway."
  def text(status) do
    [
      "process #{status["pid"]} of user #{status["user"]}, #{status["node"]}, " <>
        "ex_service_mesh_router #{status["version"]}\n",
      "  #{words(status)}",
      if(status["handover"], do: "; #{status["handover"]}", else: ""),
      "\n  #{Enum.join(status["addresses"] || [], ", ")}, #{status["connections"]} connections",
      if(status["since"], do: ", since #{status["since"]}", else: ""),
      "\n"
    ]
  end

  defp words(%{"state" => "waiting", "missing" => [_ | _] = missing}),
    do: "waits for: #{Enum.join(missing, ", ")}"

  defp words(%{"state" => "waiting"}), do: "starts"
  defp words(%{"state" => "serving"}), do: "has the port"
  defp words(%{"state" => "ready"}), do: "is ready, and takes over when it is told to"
  defp words(%{"state" => state}), do: "is #{state}"
end
