defmodule ExServiceMeshRouter.Console.Index.Sampler do
  @moduledoc false
  # Reads the counters once a second, keeps two minutes of samples, and sends them to watchers.

  use GenServer

  alias ExServiceMeshRouter.Gateway
  alias ExServiceMeshRouter.Console.Index.Sample

  @pause 1_000
  @kept 120
  @most_errors 30
  # Each watcher has one of the server's connections.
  @most_watchers 32

  def start_link(config),
    do: GenServer.start_link(__MODULE__, config, name: process_name(config.name))

  @doc "Returns `%{live: %{service => [sample]}, errors: [error]}`, the latest first."
  def now(name), do: GenServer.call(process_name(name), :now)

  @doc """
  Sends the caller `{:sample, now}` after each sample, and `:drain` when the gateway drains. Returns
  `:full` if there are too many watchers.
  """
  def watch(name), do: name |> process_name() |> GenServer.call(:watch)

  @doc "Takes a sample now. For tests."
  def sample(name), do: name |> process_name() |> GenServer.call(:sample)

  defp process_name(name), do: Module.concat(name, IndexSampler)

  @impl true
  def init(config) do
    state = %{name: config.name, live: %{}, errors: [], watchers: %{}, before: read(config.name)}
    schedule()
    {:ok, state}
  end

  @impl true
  def handle_call(:now, _from, state), do: {:reply, view(state), state}
  def handle_call(:sample, _from, state), do: {:reply, :ok, sampled(state)}

  def handle_call(:watch, {pid, _tag}, state) do
    if map_size(state.watchers) < @most_watchers do
      monitor = Process.monitor(pid)
      {:reply, :ok, put_in(state.watchers[monitor], pid)}
    else
      {:reply, :full, state}
    end
  end

  @impl true
  def handle_info(:sample, state) do
    schedule()
    {:noreply, sampled(state)}
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state),
    do: {:noreply, %{state | watchers: Map.delete(state.watchers, monitor)}}

  def handle_info(_other, state), do: {:noreply, state}

  defp schedule, do: Process.send_after(self(), :sample, @pause)

  defp sampled(state) do
    {time, stats, bounds} = after_that = read(state.name)
    {before_time, before, _bounds} = state.before
    seconds = max(time - before_time, 1) / 1_000

    live =
      for {service, counters} <- stats, into: %{} do
        sample = Sample.new(before[service], counters, seconds, bounds)
        {service, Enum.take([sample | Map.get(state.live, service, [])], @kept)}
      end

    errors = Sample.errors(before, stats, DateTime.utc_now())
    errors = Enum.take(errors ++ state.errors, @most_errors)
    tell(%{state | live: live, errors: errors, before: after_that})
  end

  defp tell(%{watchers: none} = state) when map_size(none) == 0, do: state

  # A draining gateway would wait for the streams of its watchers, so they must end.
  defp tell(state) do
    message = if Gateway.draining?(state.name), do: :drain, else: {:sample, view(state)}

    for {_monitor, pid} <- state.watchers, do: send(pid, message)
    state
  end

  defp view(state), do: Map.take(state, [:live, :errors])

  defp read(name) do
    stats = ExServiceMeshRouter.stats(name)
    {System.monotonic_time(:millisecond), stats.services, stats[:latency_buckets]}
  end
end
