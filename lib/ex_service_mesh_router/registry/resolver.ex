defmodule ExServiceMeshRouter.Registry.Resolver do
  @moduledoc false
  # Addresses of upstreams that were given by name ("http://somehost:9001"). Looked up by the VM's
  # resolver, in a process of its own because a lookup can take seconds, and again from time to
  # time because containers move.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.Registry

  @again 30_000

  def start_link(config), do: GenServer.start_link(__MODULE__, config.name)

  @doc "Addresses of one name; IPv4 where there is any, for that is what servers listen on."
  def lookup(name) do
    host = to_charlist(name)

    with {:error, _} <- :inet.getaddrs(host, :inet),
         {:error, _} <- :inet.getaddrs(host, :inet6),
         do: :error
  end

  @doc "The names among the upstreams of some services."
  def used(services) do
    for(service <- services, %{kind: :name, host: name} <- service.upstreams, do: name)
    |> Enum.uniq()
  end

  @impl true
  def init(name), do: {:ok, %{name: name, unknown: MapSet.new()}, {:continue, :look_up}}

  @impl true
  def handle_continue(:look_up, state), do: {:noreply, look_up(state)}

  @impl true
  def handle_info(:look_up, state), do: {:noreply, look_up(state)}

  defp look_up(state) do
    found = state.name |> Registry.all() |> used() |> Map.new(&{&1, lookup(&1)})
    known = for {name, {:ok, ips}} <- found, into: %{}, do: {name, Enum.sort(ips)}
    unknown = for {name, :error} <- found, into: MapSet.new(), do: name

    if known != %{}, do: Registry.put_addresses(state.name, known)

    for name <- MapSet.difference(unknown, state.unknown) do
      Logger.warning(
        "service upstream #{name} has no address; looking again every #{div(@again, 1_000)} s"
      )
    end

    Process.send_after(self(), :look_up, @again)
    %{state | unknown: unknown}
  end
end
