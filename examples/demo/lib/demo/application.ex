defmodule Demo.Application do
  @moduledoc """
  Starts the services of the demo.

  On one node the gateway starts before, as a dependency. Of several nodes, each has the services that
  `config/runtime.exs` gives it, and starts its own gateway.
  """

  use Application

  @services [
    {"auth", "auth.localhost", Demo.Auth},
    {"billing", "billing.localhost", Demo.Billing}
  ]

  @doc "Returns the hosts of the services."
  @spec hosts() :: [String.t()]
  def hosts, do: for({_name, host, _endpoint} <- @services, do: host)

  @impl true
  def start(_type, _args) do
    children = children(Application.get_env(:demo, :cluster))
    Supervisor.start_link(children, strategy: :one_for_one, name: Demo.Supervisor)
  end

  defp children(nil) do
    for {name, host, _endpoint} <- @services,
        do: {Demo.Service, name: name, host: host, peers: hosts()}
  end

  # Without the telemetry event of Phoenix, a gateway that starts after the endpoints finds them soonest.
  defp children(cluster) do
    services =
      for {name, host, endpoint} <- @services, Application.get_env(:demo, endpoint) do
        options = [name: name, host: host, peers: hosts(), node: cluster[:number]]
        {Demo.Service, [endpoint: endpoint] ++ options}
      end

    gateway = {ExServiceMeshRouter.Supervisor, Application.fetch_env!(:demo, :gateway)}
    [{Demo.Cluster, cluster} | services] ++ [gateway]
  end
end
