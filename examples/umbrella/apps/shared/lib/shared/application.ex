defmodule Shared.Application do
  @moduledoc false

  use Application

  @impl true
  def start(_type, _args) do
    children = [
      # Both connect the nodes; the gateways and PubSub use these connections. See config/runtime.exs.
      {DNSCluster, query: Application.get_env(:shared, :dns_cluster_query) || :ignore},
      {Shared.Nodes, Application.get_env(:shared, :nodes, [])},
      {Phoenix.PubSub, name: Shared.PubSub}
    ]

    Supervisor.start_link(children, strategy: :one_for_one, name: Shared.Supervisor)
  end
end
