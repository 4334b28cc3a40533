defmodule ExServiceMeshRouter.DiscoveryTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExServiceMeshRouter.EndpointStandIn
  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.{Discovery, Gateway, Registry, Tree}

  setup do
    %{name: name} = web = unique("found")
    Map.put(web, :host, "#{name}.local")
  end

  defp settings(context, more) do
    Keyword.merge([url: [host: context.host], server: true], more)
  end

  defp discovering(context, options \\ []) do
    start_gateway([discover: [only: [context.application]]] ++ options)
  end

  defp state(gateway, endpoint) do
    Enum.find_value(ExServiceMeshRouter.services(gateway), &(&1.endpoint == endpoint && &1.state))
  end

  # The promise: 50 ms after the event. The rest is for a machine that does other things as well, and
  # still half of the time after which a rescan would hide that no event was followed.
  @promptly 5_000

  test "an endpoint that runs before the gateway is found", context do
    define(context.application, context.endpoint, settings(context, says: "hello"))
    start_supervised!(context.endpoint)
    gateway = discovering(context)
    eventually({200, "hello"}, fn -> get(gateway, context.host) end)
    assert get(gateway, "tenant1." <> context.host) == {200, "hello"}

    assert [service] = ExServiceMeshRouter.services(gateway)
    assert service.name == inspect(context.endpoint)
    assert service.application == context.application
    assert service.source == :endpoint
  end

  test "an endpoint of config :app, endpoint: Endpoint is found", context do
    define(context.application, context.endpoint, settings(context, says: "mentioned"))
    mentioning = :"mentions_#{context.application}"
    load(mentioning)
    Application.put_env(mentioning, :endpoint, context.endpoint)
    on_exit(fn -> :application.unload(mentioning) end)
    start_supervised!(context.endpoint)
    gateway = start_gateway(discover: [only: [context.endpoint]])
    eventually({200, "mentioned"}, fn -> get(gateway, context.host) end)
    assert [%{application: application}] = ExServiceMeshRouter.services(gateway)
    assert application == context.application
  end

  test "endpoints are followed when they start later, stop (503) and restart",
       context do
    define(context.application, context.endpoint, settings(context, says: "late"))
    gateway = discovering(context)
    eventually(:not_listening, fn -> state(gateway, context.endpoint) end)
    assert {503, _} = get(gateway, context.host)

    start_supervised!(context.endpoint)
    eventually({200, "late"}, @promptly, fn -> get(gateway, context.host) end)
    [%{upstreams: before}] = ExServiceMeshRouter.services(gateway)

    stop_supervised!(context.endpoint)
    eventually(:not_listening, @promptly, fn -> state(gateway, context.endpoint) end)
    assert {503, _} = get(gateway, context.host)

    start_supervised!(context.endpoint)
    eventually({200, "late"}, @promptly, fn -> get(gateway, context.host) end)
    [%{upstreams: later}] = ExServiceMeshRouter.services(gateway)
    assert before != later
  end

  test "an endpoint is followed when it or its server crashes", context do
    define(context.application, context.endpoint, settings(context, says: "again"))
    gateway = discovering(context)
    start_supervised!(context.endpoint)
    eventually({200, "again"}, @promptly, fn -> get(gateway, context.host) end)

    [{_id, server, _, _}] = Supervisor.which_children(context.endpoint)
    capture_log(fn -> Process.exit(server, :kill) end)
    eventually({200, "again"}, @promptly, fn -> get(gateway, context.host) end)

    Supervisor.stop(context.endpoint, :shutdown)
    eventually({200, "again"}, @promptly, fn -> get(gateway, context.host) end)
  end

  test "an endpoint that does not serve gives a 503", context do
    define(context.application, context.endpoint, settings(context, server: false))
    gateway = discovering(context)
    start_supervised!(context.endpoint)
    eventually(:not_listening, fn -> state(gateway, context.endpoint) end)
    assert {503, _} = get(gateway, context.host)
  end

  test "a listener on all addresses is reached on loopback", context do
    http = [ip: {0, 0, 0, 0}]
    define(context.application, context.endpoint, settings(context, says: "any", http: http))
    gateway = discovering(context)
    start_supervised!(context.endpoint)
    eventually({200, "any"}, @promptly, fn -> get(gateway, context.host) end)
    assert [%{upstreams: ["http://127.0.0.1:" <> _]}] = ExServiceMeshRouter.services(gateway)
  end

  # What Phoenix generates in runtime.exs.
  test "a listener on all IPv6 addresses is reached on either loopback address", context do
    http = [ip: {0, 0, 0, 0, 0, 0, 0, 0}]
    define(context.application, context.endpoint, settings(context, says: "any6", http: http))
    gateway = discovering(context)
    start_supervised!(context.endpoint)
    eventually({200, "any6"}, @promptly, fn -> get(gateway, context.host) end)
    assert [%{upstreams: ["http://localhost:" <> _]}] = ExServiceMeshRouter.services(gateway)
  end

  test "an endpoint on a Unix socket is routed", context do
    path = Path.join(System.tmp_dir!(), "#{context.application}.sock")
    on_exit(fn -> File.rm(path) end)
    http = [ip: {:local, path}]
    define(context.application, context.endpoint, settings(context, says: "unix", http: http))
    gateway = discovering(context)
    start_supervised!(context.endpoint)
    eventually({200, "unix"}, @promptly, fn -> get(gateway, context.host) end)
    assert [%{upstreams: ["unix:" <> ^path]}] = ExServiceMeshRouter.services(gateway)
  end

  describe "an endpoint that cannot say where it is bound" do
    # As before Phoenix 1.7.10: no server_info/1.
    defp define_mute(context, settings) do
      load(context.application)
      Application.put_env(context.application, context.endpoint, settings)
      on_exit(fn -> :application.unload(context.application) end)

      contents =
        quote do
          def config(key), do: Application.get_env(unquote(context.application), __MODULE__)[key]
          def url, do: raise("not asked for")
        end

      Module.create(context.endpoint, contents, Macro.Env.location(__ENV__))

      start_supervised!({Agent, fn -> nil end}, id: :mute)
      |> Process.register(context.endpoint)
    end

    test "is routed to http: [port:]", context do
      %URI{port: port} = URI.parse(start_server("old"))
      define_mute(context, settings(context, http: [port: port]))
      gateway = discovering(context)
      eventually({200, "old"}, fn -> get(gateway, context.host) end)
    end

    test "is routed to url: [port:] without http:", context do
      %URI{port: port} = URI.parse(start_server("older"))
      define_mute(context, url: [host: context.host, port: port], server: true)
      gateway = discovering(context)
      eventually({200, "older"}, fn -> get(gateway, context.host) end)
    end
  end

  test "two endpoints with one host are logged, and the same one always gets it",
       context do
    other = Module.concat(context.endpoint, Other)
    define(context.application, context.endpoint, settings(context, says: "first"))
    define(context.application, other, settings(context, says: "other"))

    log =
      capture_log(fn ->
        gateway = discovering(context)
        start_supervised!(other)
        eventually({200, "other"}, fn -> get(gateway, context.host) end)
        start_supervised!(context.endpoint)
        eventually({200, "first"}, fn -> get(gateway, context.host) end)
        stop_supervised!(context.endpoint)
        eventually({200, "other"}, fn -> get(gateway, context.host) end)
      end)

    assert log =~
             "route #{context.host} is claimed by both #{inspect(context.endpoint)} and " <>
               inspect(other)
  end

  test ":only and :except select applications and endpoints", context do
    other = Module.concat(context.endpoint, Other)
    define(context.application, context.endpoint, settings(context, says: "yes"))
    define(context.application, other, settings(context, url: [host: "other." <> context.host]))
    start_supervised!(context.endpoint)
    start_supervised!(other)
    gateway = start_gateway(discover: [only: [context.application], except: [other]])
    eventually({200, "yes"}, fn -> get(gateway, context.host) end)
    assert [%{endpoint: endpoint}] = ExServiceMeshRouter.services(gateway)
    assert endpoint == context.endpoint
  end

  test "an invalid host is a warning and does not affect other routes", context do
    other = Module.concat(context.endpoint, Other)
    define(context.application, context.endpoint, settings(context, says: "fine"))
    define(context.application, other, settings(context, url: [host: "no host"]))

    log =
      capture_log(fn ->
        gateway = discovering(context)
        start_supervised!(context.endpoint)
        start_supervised!(other)
        eventually({200, "fine"}, fn -> get(gateway, context.host) end)
        eventually(:listening, fn -> state(gateway, other) end)
      end)

    assert log =~
             ~s|#{inspect(other)} gets no route: its `url: [host: "no host"]` is not a host name|
  end

  test "secrets in Phoenix's event are not kept", context do
    define(context.application, context.endpoint, settings(context, says: "quiet"))

    log =
      capture_log(fn ->
        gateway = discovering(context)
        start_supervised!(context.endpoint)
        eventually({200, "quiet"}, fn -> get(gateway, context.host) end)
        # Those of them that have a state.
        for {module, pid} <- Tree.processes(gateway), module in [Discovery, Registry, Gateway] do
          refute inspect(:sys.get_state(pid), limit: :infinity) =~ "secret"
        end
      end)

    refute log =~ "secret"
  end
end
