defmodule Demo.Cluster do
  @moduledoc """
  Makes this VM a node and connects it with the others, again and again, because a node may have been
  away. In your system, libcluster or dns_cluster does this.
  """

  use GenServer

  @pause 500

  @doc "Takes `number`, `count`, `id` and `cookie` of `config/runtime.exs`."
  def start_link(options), do: GenServer.start_link(__MODULE__, options, name: __MODULE__)

  @doc "Returns the name of the node with this number."
  def node(number, id), do: :"demo#{number}-#{id}@127.0.0.1"

  # Not by `--name` and `--cookie`: every user of the machine can read arguments.
  @impl true
  def init(options) do
    Application.put_env(:kernel, :inet_dist_use_interface, {127, 0, 0, 1})

    case Node.start(node(options[:number], options[:id]), :longnames) do
      {:ok, _pid} ->
        Node.set_cookie(String.to_atom(options[:cookie]))
        others = for number <- 1..options[:count], do: node(number, options[:id])
        {:ok, List.delete(others, Node.self()), {:continue, :connect}}

      {:error, reason} ->
        {:stop, {:not_distributed, reason}}
    end
  end

  @impl true
  def handle_continue(:connect, others), do: connect(others)

  @impl true
  def handle_info(:connect, others), do: connect(others)

  defp connect(others) do
    for other <- others -- Node.list(), do: Node.connect(other)
    Process.send_after(self(), :connect, @pause)
    {:noreply, others}
  end
end
