defmodule ExServiceMeshRouter.System.ClusterFaultsTest do
  # Three nodes under load, and faults by a seeded schedule: nodes are killed, stopped and continued,
  # terminated and started again, cut off from each other; endpoints stop and start. For longer, or to
  # repeat a run:
  #
  #     FAULT_SECONDS=600 FAULT_SEED=1 mix test test/system/cluster_faults_test.exs
  use ExUnit.Case

  alias ExServiceMeshRouter.{Cluster, ClusterCheck}
  alias ExServiceMeshRouter.ClusterCheck.{Clients, Faults}

  @moduletag :capture_log
  @moduletag :tmp_dir
  @moduletag timeout: :infinity

  @seconds "FAULT_SECONDS" |> System.get_env("12") |> String.to_integer()
  @seed "FAULT_SEED" |> System.get_env("#{:rand.uniform(1_000_000)}") |> String.to_integer()
  @kinds "FAULT_KINDS"
         |> System.get_env("kill stop term disconnect endpoint")
         |> String.split()
         |> Enum.map(&String.to_atom/1)

  @endpoint FaultsWeb.Endpoint
  @host "faults.local"

  if reason = Cluster.unavailable() do
    IO.puts("test/system/cluster_faults_test.exs is skipped: #{reason}")
    @moduletag skip: reason
  end

  test "requests fail only in the windows of faults, and none is executed twice", %{
    tmp_dir: folder
  } do
    options = [endpoints: [{@endpoint, @host}], folder: folder]
    cluster = Faults.start(3, options)
    clients = Clients.start(cluster.entries, @host, 16, 4, @seed)
    cluster = Faults.run(cluster, @kinds, @endpoint, @seconds * 1_000, @seed)
    settled = Faults.settle(cluster)
    results = Clients.stop(clients)
    Faults.stop(cluster)

    verdict = ClusterCheck.verdict(results, cluster.history, folder)

    report = """
    seed #{@seed}: #{length(results)} requests, #{map_size(verdict.executed)} executed; \
    #{verdict.excused} failed in a window; faults: #{inspect(Enum.frequencies_by(cluster.history, & &1.kind))}
    """

    if @seconds > 12, do: IO.puts(report)
    assert verdict.failed == [], report <> ClusterCheck.explain(verdict.failed, cluster.history)
    assert verdict.twice == [], report
    assert verdict.lost == [], report
    assert settled < 1_000, "#{report}the tables were not equal after #{settled} ms"
    assert length(results) > 100 * @seconds, report
  end
end
