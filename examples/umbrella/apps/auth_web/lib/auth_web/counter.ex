defmodule AuthWeb.Counter do
  @moduledoc """
  Keeps a number for each tenant, and one for the service's own page.
  """

  use Agent

  alias Phoenix.PubSub

  def start_link(_options), do: Agent.start_link(fn -> %{} end, name: __MODULE__)

  def subscribe(tenant), do: PubSub.subscribe(Shared.PubSub, topic(tenant))

  def get(tenant), do: Agent.get(__MODULE__, &Map.get(&1, tenant, 0))

  def add(tenant, number) do
    count =
      Agent.get_and_update(__MODULE__, fn counts ->
        count = Map.get(counts, tenant, 0) + number
        {count, Map.put(counts, tenant, count)}
      end)

    PubSub.broadcast!(Shared.PubSub, topic(tenant), {:count, count})
  end

  defp topic(tenant), do: "counter:#{tenant}"
end
