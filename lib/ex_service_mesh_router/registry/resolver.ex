defmodule ExServiceMeshRouter.Registry.Resolver do
  @moduledoc false
  # Looks up the addresses of named upstreams ("http://somehost:9001") with the VM's resolver. A
  # separate process, because a lookup can take seconds; repeated, because the addresses of containers
  # change.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.Gateway.Store
  alias ExServiceMeshRouter.Registry

  @interval 30_000

  def start_link(config), do: GenServer.start_link(__MODULE__, config.name)

  @doc "Returns the addresses of a name, IPv6 only if there is no IPv4: most servers listen on IPv4."
  def lookup(name) do
    host = to_charlist(name)

    with {:error, _} <- :inet.getaddrs(host, :inet),
         {:error, _} <- :inet.getaddrs(host, :inet6),
         do: :error
  end

  @doc "Returns the names among the upstreams of services."
  def used(services) do
    for(service <- services, %{kind: :name, host: name} <- service.upstreams, do: name)
    |> Enum.uniq()
  end

  @doc "Returns whether the names of the configured upstreams have been looked up once."
  def looked_up?(name), do: Store.get(name, :looked_up, false)

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
    Store.put(state.name, :looked_up, true)

    for name <- MapSet.difference(unknown, state.unknown) do
      Logger.warning(
        "upstream #{name} has no address and gets no requests; the gateway looks it up again " <>
          "every #{div(@interval, 1_000)} s"
      )
    end

    Process.send_after(self(), :look_up, @interval)
    %{state | unknown: unknown}
  end
end
