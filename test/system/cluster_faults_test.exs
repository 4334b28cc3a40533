defmodule ExServiceMeshRouter.System.ClusterFaultsTest do
  # Three nodes under load, and faults by a seeded schedule: nodes are killed, stopped and continued,
  # terminated and started again; endpoints stop and start; distribution disconnects. Where the system allows
  # it, the network between them fails too. For longer, or to repeat a run:
  #
  #     FAULT_SECONDS=600 FAULT_SEED=1 mix test test/system/cluster_faults_test.exs
  #
  # FAULT_KINDS="partition loss" makes only these, see ClusterCheck.Faults.
  use ExUnit.Case

  alias ExServiceMeshRouter.{Cluster, ClusterCheck, Network}
  alias ExServiceMeshRouter.ClusterCheck.{Clients, Faults}

  @moduletag :capture_log
  @moduletag :tmp_dir
  @moduletag timeout: :infinity

  network = Network.unavailable()
  @network network == nil
  if network,
    do: IO.puts("test/system/cluster_faults_test.exs makes no faults of the network: #{network}")

  @seconds "FAULT_SECONDS" |> System.get_env("12") |> String.to_integer()
  @seed "FAULT_SEED" |> System.get_env("#{:rand.uniform(1_000_000)}") |> String.to_integer()
  @kinds "FAULT_KINDS"
         |> System.get_env(Enum.join(Faults.kinds(@network), " "))
         |> String.split()
         |> Enum.map(&String.to_existing_atom/1)

  @endpoint FaultsWeb.Endpoint
  @host "faults.local"

  if reason = Cluster.unavailable() do
    IO.puts("test/system/cluster_faults_test.exs is skipped: #{reason}")
    @moduletag skip: reason
  end

  test "requests fail only in the windows of faults, and none is executed twice", %{
    tmp_dir: folder
  } do
    network = if @network, do: Network.start(3)
    options = [endpoints: [{@endpoint, @host}], folder: folder, network: network]
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
