defmodule ExServiceMeshRouter.Handover.Session do
  @moduledoc false
  # Serves one connection to the socket of the handover, in a process of its own: one question, or a
  # handover (Predecessor). Another user is not heard. What is no message gets an answer in words.

  alias ExServiceMeshRouter.Handover.{Calls, Predecessor, Peer, Status, Wire}

  @first 5_000
  @full_pause 50

  def start_link(offer, listener, config),
    do: spawn_link(fn -> accept(offer, listener, config) end)

  defp accept(offer, listener, config) do
    case :socket.accept(listener) do
      {:ok, socket} ->
        send(offer, {:accepted, self()})
        serve(socket, offer, config)

      {:error, reason} when reason in [:emfile, :enfile, :econnaborted] ->
        Process.sleep(@full_pause)
        accept(offer, listener, config)

      {:error, _reason} ->
        exit(:closed)
    end
  end

  defp serve(socket, offer, config) do
    with {:ok, peer} <- Peer.of(socket),
         {:ok, uid} <- Peer.own_uid() do
      if peer.uid == uid,
        do: answer(Wire.recv(socket, @first), socket, peer, offer, config),
        else: send(offer, {:stranger, peer})
    end

    :socket.close(socket)
  end

  defp answer({:ok, %{"type" => "status"}}, socket, _peer, _offer, config),
    do: Wire.send(socket, "status", Status.of(config))

  defp answer({:ok, %{"type" => "take"} = message}, socket, peer, offer, config),
    do: Predecessor.run(socket, message, peer, offer, config)

  defp answer({:ok, %{"type" => "take_over"}}, socket, _peer, _offer, config) do
    case Calls.take(config.name) do
      :ok -> Wire.send(socket, "taken", Status.of(config))
      {:error, why} -> Wire.send(socket, "refused", %{why: why})
    end
  end

  defp answer({:ok, %{"type" => type}}, socket, _peer, _offer, _config),
    do: Wire.send(socket, "refused", %{why: "unknown message #{inspect(type)}"})

  defp answer({:error, why}, socket, _peer, _offer, _config) when is_binary(why),
    do: Wire.send(socket, "refused", %{why: why})

  defp answer({:error, _closed_or_idle}, _socket, _peer, _offer, _config), do: :ok
end
