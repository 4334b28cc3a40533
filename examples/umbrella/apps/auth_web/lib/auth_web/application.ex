defmodule AuthWeb.Application do
  @moduledoc false

  use Application

  @impl true
  def start(_type, _args) do
    children = [AuthWeb.Counter, AuthWeb.Endpoint]
    Supervisor.start_link(children, strategy: :one_for_one, name: AuthWeb.Supervisor)
  end

  @impl true
  def config_change(changed, _new, removed) do
    AuthWeb.Endpoint.config_change(changed, removed)
    :ok
  end
end
