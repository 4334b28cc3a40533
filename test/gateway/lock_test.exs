defmodule ExServiceMeshRouter.Gateway.LockTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Gateway.Lock

  test "one caller runs at a time, and each gets its result" do
    counter = :counters.new(2, [])

    results =
      1..200
      |> Task.async_stream(
        fn n ->
          Lock.run(:"one at a time", fn ->
            :counters.add(counter, 1, 1)
            # Others run now, if they may.
            :erlang.yield()
            if :counters.get(counter, 1) > 1, do: :counters.add(counter, 2, 1)
            :counters.sub(counter, 1, 1)
            n
          end)
        end,
        max_concurrency: 200
      )
      |> Enum.map(fn {:ok, n} -> n end)

    assert results == Enum.to_list(1..200)
    assert :counters.get(counter, 2) == 0
  end

  test "a caller that raises or is killed releases the lock" do
    assert_raise RuntimeError, fn -> Lock.run(:"lets go", fn -> raise "no" end) end

    test = self()

    {holding, monitor} =
      spawn_monitor(fn ->
        Lock.run(:"lets go", fn ->
          send(test, :held)
          Process.sleep(:infinity)
        end)
      end)

    assert_receive :held
    waiting = Task.async(fn -> Lock.run(:"lets go", fn -> :mine end) end)
    # Killed while it waits: its turn is skipped.
    {dying, dead} =
      spawn_monitor(fn -> Lock.run(:"lets go", fn -> send(test, :dying_ran) end) end)

    Process.exit(dying, :kill)
    assert_receive {:DOWN, ^dead, :process, _, :killed}
    assert Task.yield(waiting, 0) == nil

    Process.exit(holding, :kill)
    assert_receive {:DOWN, ^monitor, :process, _, :killed}
    assert Task.await(waiting) == :mine
    refute_received :dying_ran
  end

  test "a registered process can take a lock, and no message is left in its mailbox" do
    Process.register(self(), :"named caller")
    assert Lock.run(:"for the named", fn -> Lock.run(:another, fn -> :inner end) end) == :inner
    refute_received _
  end

  test "the value can be read while another process holds the lock" do
    assert Lock.get(:"with a value") == nil

    Lock.run(:"with a value", fn ->
      Lock.put(:"with a value", 1)
      assert Task.await(Task.async(fn -> Lock.get(:"with a value") end)) == 1
    end)

    assert Lock.get(:"with a value") == 1
  end
end
