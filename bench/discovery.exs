# How long a route takes to appear after an endpoint has started, and to disappear after it has died,
# with real endpoints. In an umbrella that has the gateway as a dependency:
#
#     mix run --no-start PATH/bench/discovery.exs [ROUNDS]
#
# Every endpoint is stopped and started ROUNDS times (50) in its own supervisor. "there" counts from
# Phoenix's event of the start, "gone" from the death of the endpoint's process, both to the moment
# at which the data plane has its new table. What lies between the event and the table:
#
#     told      until discovery's probe runs
#     asked     the probe: which processes, where it is bound
#     listener  of that, to start a private listener, for endpoints that have none of their own
#     table     until the table is swapped

defmodule Bench.Discovery do
  alias ExServiceMeshRouter.{Discovery, Listeners, Native}

  @functions [
    {Discovery.PhoenixEvents, :handle, 4},
    {Discovery.Probe, :run, 3},
    {Listeners, :ensure, 3},
    {Native, :put_routes, 3}
  ]

  def run(rounds) do
    start()
    for function <- @functions, do: 1 = :erlang.trace_pattern(function, returns(), [:local])
    :erlang.trace(:all, true, [:call, :monotonic_timestamp])
    :erlang.trace(self(), false, [:call])

    for service <- ExServiceMeshRouter.services(), service.source == :endpoint do
      restart(service.endpoint)
      report(service, for(_ <- 1..rounds, do: restart(service.endpoint)))
    end

    IO.puts("on #{:erlang.system_info(:schedulers_online)} schedulers#{load()}")
  end

  defp start do
    Logger.configure(level: :error)
    Application.put_env(:phoenix, :serve_endpoints, true)
    apps = Map.keys(Mix.Project.apps_paths() || %{Mix.Project.config()[:app] => "."})
    for app <- apps, do: {:ok, _} = Application.ensure_all_started(app)
    Logger.configure(level: :error)
    wait(fn -> Enum.all?(ExServiceMeshRouter.services(), &(&1.state == :listening)) end)
  end

  defp returns, do: [{:_, [], [{:return_trace}]}]

  # `%{gone:, there:, told:, asked:, listener:, table:}`, in native units of time.
  defp restart(endpoint) do
    {:dictionary, dictionary} = Process.info(Process.whereis(endpoint), :dictionary)
    supervisor = dictionary[:"$ancestors"] |> hd()

    monitor = Process.monitor(endpoint)
    flush([])
    :ok = Supervisor.terminate_child(supervisor, endpoint)
    died = receive(do: ({:DOWN, ^monitor, _, _, _} -> System.monotonic_time()))
    wait(fn -> state(endpoint) == :not_listening end)
    # A server ends before its endpoint does, and then the route has gone already.
    gone = max(last(:put_routes, flush([])) - died, 0)

    {:ok, _} = Supervisor.restart_child(supervisor, endpoint)
    wait(fn -> state(endpoint) == :listening end)
    trace = flush([])
    event = called(:handle, trace)
    probe = called(:run, trace)
    probed = last(:run, trace)
    swapped = last(:put_routes, trace)
    listener = if c = called(:ensure, trace), do: last(:ensure, trace) - c, else: 0

    %{
      gone: gone,
      there: swapped - event,
      told: probe - event,
      asked: probed - probe,
      listener: listener,
      table: swapped - probed
    }
  end

  defp called(name, trace),
    do: Enum.find_value(trace, &with({:call, ^name, at} <- &1, do: at, else: (_ -> nil)))

  defp last(name, trace) do
    trace
    |> Enum.reverse()
    |> Enum.find_value(&with({:return, ^name, at} <- &1, do: at, else: (_ -> nil)))
  end

  defp flush(seen) do
    receive do
      {:trace_ts, _, :call, {_, name, _}, at} -> flush([{:call, name, at} | seen])
      {:trace_ts, _, :return_from, {_, name, _}, _, at} -> flush([{:return, name, at} | seen])
    after
      20 -> Enum.reverse(seen)
    end
  end

  defp state(endpoint),
    do: Enum.find(ExServiceMeshRouter.services(), &(&1.endpoint == endpoint)).state

  defp wait(fun) do
    unless fun.() do
      Process.sleep(1)
      wait(fun)
    end
  end

  defp report(service, rounds) do
    upstream = ExServiceMeshRouter.resolve(hd(service.hosts)).upstreams |> hd()
    IO.puts("#{service.name} at #{upstream}, #{length(rounds)} restarts, ms: median / p90 / most")

    for key <- [:gone, :there, :told, :asked, :listener, :table] do
      sorted = rounds |> Enum.map(& &1[key]) |> Enum.sort()
      count = length(sorted)
      figures = for index <- [div(count, 2), div(count * 9, 10), count - 1], do: ms(sorted, index)
      IO.puts("  #{String.pad_trailing("#{key}", 10)}#{Enum.join(figures, " / ")}")
    end
  end

  defp ms(sorted, index) do
    us = sorted |> Enum.at(index) |> System.convert_time_unit(:native, :microsecond)
    :erlang.float_to_binary(us / 1_000, decimals: 2)
  end

  defp load do
    case File.read("/proc/loadavg") do
      {:ok, text} -> ", load " <> (text |> String.split() |> hd())
      _ -> ""
    end
  end
end

rounds = with [text | _] <- System.argv(), do: String.to_integer(text), else: (_ -> 50)
Bench.Discovery.run(rounds)
