defmodule Shared.Application do
  @moduledoc false

  use Application

  @impl true
  def start(_type, _args) do
    children = [{Phoenix.PubSub, name: Shared.PubSub}]
    Supervisor.start_link(children, strategy: :one_for_one, name: Shared.Supervisor)
  end
end
