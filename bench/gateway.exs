# The gateway as users run it, in front of one static service; started by bench/run.py. BENCH_OPTIONS
# is configuration beyond that, as a keyword list.
upstream =
  case System.fetch_env!("BENCH_UPSTREAM") do
    "unix:" <> _ = path -> path
    "h2c://" <> _ = url -> url
    address -> "http://" <> address
  end

{options, []} = Code.eval_string(System.get_env("BENCH_OPTIONS", "[]"))

# Where telemetry is measured it is there, and nobody has attached a handler.
if options[:telemetry] do
  defmodule :telemetry do
    def execute(_event, _measurements, _metadata), do: :ok
  end

  # By this name it is known to run.
  Process.register(spawn(fn -> Process.sleep(:infinity) end), :telemetry_sup)
end

Application.put_all_env(
  ex_service_mesh_router:
    [
      port: String.to_integer(System.fetch_env!("BENCH_PORT")),
      server: true,
      workers: 1,
      discover: false,
      services: %{"bench.local" => upstream}
    ] ++ options
)

{:ok, _} = Application.ensure_all_started(:ex_service_mesh_router)
Process.sleep(:infinity)
