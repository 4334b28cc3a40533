# The gateway as users run it, in front of one static service; started by bench/run.py.
upstream =
  case System.fetch_env!("BENCH_UPSTREAM") do
    "unix:" <> _ = path -> path
    address -> "http://" <> address
  end

Application.put_all_env(
  ex_service_mesh_router: [
    port: String.to_integer(System.fetch_env!("BENCH_PORT")),
    server: true,
    workers: 1,
    discover: false,
    services: %{"bench.local" => upstream}
  ]
)

{:ok, _} = Application.ensure_all_started(:ex_service_mesh_router)
Process.sleep(:infinity)
