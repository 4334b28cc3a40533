# A VM that computes on all its schedulers; with a port and an upstream, with the gateway in it.
# Started by bench/schedulers, which asks with a line of input how much has been done.
with [port, upstream] <- System.argv() do
  Application.put_all_env(
    ex_service_mesh_router: [
      port: String.to_integer(port),
      server: true,
      workers: 1,
      discover: false,
      services: %{"bench.local" => "http://" <> upstream}
    ]
  )

  {:ok, _} = Application.ensure_all_started(:ex_service_mesh_router)
end

done = :counters.new(1, [:write_concurrency])

defmodule Busy do
  def work(done) do
    :erlang.md5("some work")
    :counters.add(done, 1, 1)
    work(done)
  end
end

for _ <- 1..System.schedulers_online(), do: spawn_link(fn -> Busy.work(done) end)

for _ <- IO.stream(:stdio, :line), do: IO.puts(:counters.get(done, 1))
