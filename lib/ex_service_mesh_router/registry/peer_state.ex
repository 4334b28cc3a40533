defmodule ExServiceMeshRouter.Registry.PeerState do
  @moduledoc false
  # Says how the gateway of another node is used, and why not. Two parts of the system know it: the mesh,
  # which hears of draining and lost nodes, and the data plane, which sees whether a peer answers.

  alias ExServiceMeshRouter.{Gateway, Native}

  # Errors of the data plane may be long.
  @longest 200

  @doc "Returns `%{id => peer}` of Native.peers/1, which is `%{}` without a mesh."
  def links(name), do: name |> Gateway.ref() |> Native.peers() |> Map.new(&{&1.id, &1})

  @doc """
  Returns what users see of a peer: its node, its state, and the address and the error of its last
  connection. `known` is `:joining`, `:serving`, `:draining` or `:last_resort`, and `link` its entry in
  links/1, or `nil`.
  """
  def public(node, known, link) do
    state = state(known, link)
    %{node: node, state: state, address: link[:address], error: error(state, link)}
  end

  defp state(:serving, %{state: :unreachable}), do: :unreachable
  defp state(:serving, %{state: state}) when state in [:suspect, :lost], do: :suspect
  defp state(known, _link), do: known

  defp error(:serving, _link), do: nil
  defp error(_state, %{error: error}) when is_binary(error), do: String.slice(error, 0, @longest)
  defp error(_state, _link), do: nil

  @doc "Returns the state as words."
  def words(state), do: state |> to_string() |> String.replace("_", " ")

  @doc "Returns whether requests go to the peer as to any other."
  def used?(%{state: state}), do: to_string(state) == "serving"

  @doc "Returns why requests avoid the peer, or `nil` if they do not. The state may be text, as in JSON."
  def why(peer), do: why(to_string(peer.state), peer)

  defp why("serving", _peer), do: nil
  defp why("joining", _peer), do: "it has not acknowledged this node yet"
  defp why("draining", _peer), do: "it is stopping and gets no requests"

  defp why("suspect", peer),
    do: "it does not answer#{detail(peer)}; it gets requests if no other node takes them"

  defp why("unreachable", peer),
    do: "cannot connect to #{peer.address || "any of its addresses"}#{detail(peer)}"

  defp why("last_resort", peer) do
    "Erlang distribution is not connected to it; it gets requests if no other node takes them" <>
      detail(peer)
  end

  defp detail(%{error: nil}), do: ""
  defp detail(%{error: error}), do: " (#{error})"
end
