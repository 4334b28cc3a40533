defmodule ExServiceMeshRouter.Console.RouteListingTest do
  # Not async: the configuration of the application is the VM's.
  use ExServiceMeshRouter.GatewayCase

  import ExServiceMeshRouter.EndpointStandIn
  import ExUnit.CaptureIO

  alias ExServiceMeshRouter.Json
  alias Mix.Tasks.Mesh.Routes

  @application :ex_service_mesh_router

  setup do
    before = Application.get_all_env(@application)

    on_exit(fn ->
      for {key, _} <- Application.get_all_env(@application),
          do: Application.delete_env(@application, key)

      Application.put_all_env([{@application, before}])
    end)

    unique("list")
  end

  defp configure(options), do: Application.put_all_env([{@application, options}])

  defp options(context, more \\ []) do
    Keyword.merge(
      [
        port: free_port(),
        ip: {127, 0, 0, 1},
        dev_domain: "localhost",
        discover: [only: [context.application]]
      ],
      more
    )
  end

  defp run(arguments \\ []), do: capture_io(fn -> Routes.run(arguments) end)

  defp json do
    {:ok, listing} = Json.decode(run(["--json"]))
    listing
  end

  test "lists the configured routes without starting anything", context do
    services = %{"legacy.local" => "http://127.0.0.1:9001"}
    configure(options = options(context, services: services))

    define(context.application, context.endpoint,
      url: [host: "own.local"],
      http: [port: 4001],
      server: true
    )

    assert run() =~
             "No gateway with an index answers on port #{options[:port]}. The routes of the " <>
               "configuration:"

    assert run() =~ ~r/^HOST +SERVICE +UPSTREAM +STATE$/m

    lines = run() |> String.split("\n") |> Enum.map(&String.split(&1, ~r/  +/))
    name = inspect(context.endpoint)
    assert ["own.local", name, "http://127.0.0.1:4001", "configured"] in lines
    assert ["#{context.name}.localhost *", name, "http://127.0.0.1:4001", "configured"] in lines
    assert ["legacy.local", "legacy.local", "http://127.0.0.1:9001", "configured"] in lines
    assert Application.fetch_env(:phoenix, :serve_endpoints) == :error
  end

  test "says which listener an endpoint will have", context do
    define(context.application, context.endpoint, [])

    upstream = fn settings, options ->
      configure(options(context, options))
      settings = Keyword.merge([url: [host: "own.local"], server: true], settings)
      Application.put_env(context.application, context.endpoint, settings)
      %{"running" => false, "routes" => routes} = json()
      %{"upstreams" => [upstream]} = Enum.find(routes, &(&1["host"] == "own.local"))
      upstream
    end

    assert upstream.([http: [ip: {:local, "/run/a.sock"}, port: 0]], []) == "unix:/run/a.sock"
    assert upstream.([http: [ip: {0, 0, 0, 0}, port: "4001"]], []) == "http://127.0.0.1:4001"
    assert upstream.([http: [port: 0]], []) == "a port of its own choice"
    assert upstream.([http: [ip: :any]], []) == "http://127.0.0.1:4000"
    assert upstream.([http: [port: nil]], []) == "not known before it starts"
    assert upstream.([http: [ip: :any]], port: 4000) == "a private listener"
    assert upstream.([http: false], []) == "a private listener"
    assert upstream.([http: false], private_listeners: :never) == "none, it has no http:"
    assert upstream.([http: [port: 4001], server: false], []) == "none, it does not serve"

    assert upstream.([http: false, server: false], private_listeners: :all) ==
             "a private listener"

    port = free_port()
    assert upstream.([http: [port: port]], port: port) == "a private listener"

    http2 = [http2: [context.endpoint], private_listeners: :auto]
    assert upstream.([http: [port: 4001]], http2) == "h2c://127.0.0.1:4001"
    assert upstream.([http: [ip: {:local, "/a.sock"}, port: 0]], http2) == "h2c+unix:/a.sock"
    assert upstream.([http: [port: 0]], http2) == "a port of its own choice, over HTTP/2"
    assert upstream.([http: false], http2) == "a private listener, over HTTP/2"
  end

  test "lists the routes of a gateway in another VM of this machine", context do
    define(context.application, context.endpoint, url: [host: "own.local"], server: true)
    start_supervised!(context.endpoint)
    gateway = start_gateway([index: true] ++ Keyword.put(options(context), :port, 0))
    eventually({200, inspect(context.endpoint)}, fn -> get(gateway, "own.local") end)
    configure(options(context, port: ExServiceMeshRouter.port(gateway)))

    assert %{"running" => true, "routes" => routes} = json()
    host = "#{context.name}.localhost"
    assert %{"state" => "listening", "since" => since} = Enum.find(routes, &(&1["host"] == host))
    assert {:ok, _, 0} = DateTime.from_iso8601(since)
    assert [%{upstreams: upstreams}] = ExServiceMeshRouter.services(gateway)

    assert %{"upstreams" => ^upstreams, "derived" => false} =
             Enum.find(routes, &(&1["host"] == "own.local"))

    text = run()
    assert text =~ "The gateway runs on port #{ExServiceMeshRouter.port(gateway)}. Its routes:"
    assert text =~ ~r/#{host} \*  .*  listening since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n/
  end

  test "says which endpoints need no socket, and why others do", context do
    define(context.application, context.endpoint, url: [host: "own.local"], server: true)
    other = unique("bandit")
    settings = [adapter: Bandit.PhoenixAdapter, url: [host: "bandit.local"], plug: fn _ -> "" end]
    define(other.application, other.endpoint, [server: true, http: false] ++ settings)
    for endpoint <- [context.endpoint, other.endpoint], do: start_supervised!(endpoint)
    discover = [only: [context.application, other.application]]

    gateway =
      start_gateway(
        [index: true, in_vm: :auto] ++
          Keyword.merge(options(context), port: 0, discover: discover)
      )

    settle(gateway)
    configure(options(context, port: ExServiceMeshRouter.port(gateway)))
    text = run()
    assert text =~ ~r/bandit.local .* in VM, unix:/
    assert text =~ "#{inspect(context.endpoint)} is not served in VM: its server is not Bandit\n"
    assert {404, index} = get(gateway, "nothing.localhost")
    assert index =~ "in VM, unix:"
    assert index =~ "#{inspect(context.endpoint)} is not served in VM: its server is not Bandit\n"
  end

  test "handles an empty configuration, and reports errors" do
    configure(port: free_port(), discover: false)
    assert run() =~ "the configuration names no endpoint and no service"
    configure(prot: 1)
    assert_raise Mix.Error, ~r/prot: unknown key/, fn -> run() end
    assert Application.fetch_env(:phoenix, :serve_endpoints) == :error
  end
end
