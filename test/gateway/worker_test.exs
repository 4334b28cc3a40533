defmodule ExServiceMeshRouter.Gateway.WorkerTest do
  # Not async: it takes all the workers that the VM has.
  use ExServiceMeshRouter.GatewayCase

  alias ExServiceMeshRouter.{ListenError, Native, Test, Tree}

  @most max(1, :erlang.system_info(:dirty_io_schedulers) - 2)

  describe "the workers of all gateways in the VM" do
    setup :wait_for_free_workers

    test "leave two threads for file IO, and a further gateway fails with the reason" do
      gateways = for _ <- 1..@most, do: start_gateway(workers: 1, timeouts: [drain: 0])

      assert {:error, %ListenError{kind: :workers} = error} = start_one_more()
      message = Exception.message(error)
      assert message =~ "#{@most} of #{@most} are taken, 1 more are wanted"
      assert message =~ "+SDio 20"

      # What would hang otherwise.
      read = Task.async(fn -> File.read("mix.exs") end)
      assert {:ok, {:ok, "defmodule" <> _}} = Task.yield(read, 5_000) || Task.shutdown(read)

      # They serve, all of them, and the place of one that ends is free at once.
      for gateway <- gateways, do: assert({404, _} = get(gateway, "nobody.local"))
      stop_supervised!(hd(gateways))
      again = start_gateway(workers: 1, services: %{"a.local" => start_server("again")})
      assert get(again, "a.local") == {200, "again"}
    end

    test "are released when a gateway fails to listen" do
      taken = start_gateway(workers: 1)
      port = ExServiceMeshRouter.port(taken)

      for _ <- 1..3 do
        assert {:error, %ListenError{kind: :eaddrinuse}} =
                 start_one_more(port: port, workers: @most - 1)
      end

      other = start_gateway(workers: @most - 1)
      assert {404, _} = get(other, "nobody.local")
    end

    test "fail a test that starts too many with a readable message" do
      for _ <- 1..@most, do: start_gateway(workers: 1)
      assert_raise RuntimeError, ~r/too many workers in this VM/, fn -> Test.start_gateway!() end
    end
  end

  describe "the process of a worker" do
    setup do
      gateway = start_gateway(workers: 1)

      [runner] =
        for {{:helper, ExServiceMeshRouter.Gateway.Worker}, pid} <- Tree.processes(gateway),
            do: pid

      %{gateway: gateway, runner: runner}
    end

    test "has a label that says what it is", %{gateway: gateway, runner: runner} do
      {:dictionary, dictionary} = Process.info(runner, :dictionary)
      assert dictionary[:"$process_label"] == {:gateway_worker_in_a_nif, gateway, 0}
      assert dictionary[:"$initial_call"] == {ExServiceMeshRouter.Gateway.Worker, :runner, 1}
    end

    # The guide's way to collect all the others.
    test "can be distinguished from processes that can be garbage collected", %{runner: runner} do
      eventually({:current_function, {Native, :run, 2}}, fn ->
        Process.info(runner, :current_function)
      end)

      collect =
        Task.async(fn ->
          for pid <- Process.list(),
              {:current_function, {module, _, _}} = Process.info(pid, :current_function),
              module != Native,
              do: :erlang.garbage_collect(pid)
        end)

      assert {:ok, [_ | _]} = Task.yield(collect, 10_000) || Task.shutdown(collect, :brutal_kill)
    end
  end

  # A gateway of an earlier test may still be draining: for up to 30 s if its owner was killed.
  defp wait_for_free_workers(_context) do
    eventually(:free, 40_000, fn ->
      case start_one_more(workers: @most) do
        {:ok, pid} -> with :ok <- Supervisor.stop(pid), do: :free
        {:error, %ListenError{kind: :workers}} -> :taken
      end
    end)
  end

  defp start_one_more(options \\ [workers: 1]) do
    name = Module.concat(__MODULE__, "Gateway#{System.unique_integer([:positive])}")
    Process.flag(:trap_exit, true)
    defaults = [name: name, port: 0, ip: {127, 0, 0, 1}, discover: false]
    defaults |> Keyword.merge(options) |> ExServiceMeshRouter.Supervisor.start_link()
  end
end
