defmodule Api.Application do
  @moduledoc false

  use Application

  @impl true
  def start(_type, _args) do
    children = [Api.Endpoint]
    Supervisor.start_link(children, strategy: :one_for_one, name: Api.Supervisor)
  end

  @impl true
  def config_change(changed, _new, removed) do
    Api.Endpoint.config_change(changed, removed)
    :ok
  end
end
