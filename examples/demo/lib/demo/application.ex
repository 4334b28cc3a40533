defmodule Demo.Application do
  @moduledoc "Starts the services of the demo. The gateway starts before, as a dependency."

  use Application

  @services [{"auth", "auth.localhost"}, {"billing", "billing.localhost"}]

  @doc "Returns the hosts of the services."
  @spec hosts() :: [String.t()]
  def hosts, do: for({_name, host} <- @services, do: host)

  @impl true
  def start(_type, _args) do
    services =
      for {name, host} <- @services, do: {Demo.Service, name: name, host: host, peers: hosts()}

    Supervisor.start_link(services, strategy: :one_for_one, name: Demo.Supervisor)
  end
end
