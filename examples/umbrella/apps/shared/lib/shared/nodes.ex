defmodule Shared.Nodes do
  @moduledoc """
  Connects this node with the nodes of a list, again and again, because a node may have been away.

  It is for several nodes on one machine, or on servers with fixed names. Where a DNS name leads to all
  nodes, `DNSCluster` does this.
  """

  use GenServer

  @pause 1_000

  def start_link(nodes), do: GenServer.start_link(__MODULE__, nodes, name: __MODULE__)

  @impl true
  def init([]), do: :ignore
  def init(nodes), do: {:ok, nodes, {:continue, :connect}}

  @impl true
  def handle_continue(:connect, nodes), do: connect(nodes)

  @impl true
  def handle_info(:connect, nodes), do: connect(nodes)

  defp connect(nodes) do
    for node <- nodes -- [node() | Node.list()], do: Node.connect(node)
    Process.send_after(self(), :connect, @pause)
    {:noreply, nodes}
  end
end
