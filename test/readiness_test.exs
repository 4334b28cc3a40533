defmodule ExServiceMeshRouter.ReadinessTest do
  # Not async: applications belong to the VM.
  use ExServiceMeshRouter.GatewayCase

  import ExServiceMeshRouter.EndpointStandIn

  alias ExServiceMeshRouter.Readiness

  setup do
    %{name: name} = web = unique("ready")
    Map.put(web, :host, "#{name}.local")
  end

  defp start(context, settings, options \\ []) do
    settings = Keyword.merge([url: [host: context.host], server: true], settings)
    define(context.application, context.endpoint, settings)
    start_supervised!(context.endpoint)
    start_gateway([discover: [only: [context.application]]] ++ options)
  end

  test "a gateway whose endpoints listen is ready", context do
    gateway = start(context, says: "here")
    assert Readiness.await(gateway, 5_000) == :ok
    assert Readiness.missing(gateway) == []
    assert get(gateway, context.host) == {200, "here"}
  end

  test "an endpoint without its listener is named and awaited", context do
    gateway = start(context, says: "back")
    server = {context.endpoint, :http}
    :ok = Supervisor.terminate_child(context.endpoint, server)
    text = "#{inspect(context.endpoint)} does not listen"
    assert Readiness.await(gateway, 1_000) == {:missing, [text]}

    waiting = Task.async(fn -> Readiness.await(gateway, 10_000) end)
    {:ok, _} = Supervisor.restart_child(context.endpoint, server)
    assert Task.await(waiting, 10_000) == :ok
    assert get(gateway, context.host) == {200, "back"}
  end

  test "an endpoint that started without an event is found before the gateway is ready",
       context do
    settings = [url: [host: context.host], server: true, event: false, says: "quiet"]
    define(context.application, context.endpoint, settings)
    gateway = start_gateway(discover: [only: [context.application]])
    settle(gateway)
    start_supervised!(context.endpoint)
    assert Readiness.await(gateway, 5_000) == :ok
    assert get(gateway, context.host) == {200, "quiet"}
  end

  test "an endpoint that nothing starts, or that has only `https:`, is not awaited", context do
    gateway = start(context, [http: false, https: [port: 0]], private_listeners: :never)
    assert Readiness.await(gateway, 5_000) == :ok
    stop_supervised!(context.endpoint)

    other = unique("unstarted")
    define(other.application, other.endpoint, server: true)
    assert Readiness.await(start_gateway(discover: [only: [other.application]]), 5_000) == :ok
  end

  defmodule Slow do
    use Application

    def start(_type, test) do
      send(test, {:starting, self()})
      receive do: (:go_on -> Supervisor.start_link([], strategy: :one_for_one))
    end
  end

  test "an application that is starting is named and awaited" do
    gateway = start_gateway()
    application = unique("slow").application
    keys = [vsn: ~c"1", modules: [], registered: [], applications: [], mod: {Slow, self()}]
    :ok = :application.load({:application, application, keys})

    on_exit(fn ->
      :application.stop(application)
      :application.unload(application)
    end)

    spawn_link(fn -> :application.start(application) end)
    assert_receive {:starting, starter}, 5_000
    text = "application #{application} is starting"
    assert Readiness.missing(gateway) == [text]
    assert Readiness.await(gateway, 500) == {:missing, [text]}

    waiting = Task.async(fn -> Readiness.await(gateway, 10_000) end)
    send(starter, :go_on)
    assert Task.await(waiting, 10_000) == :ok
  end

  test "a discovery that restarts is awaited", context do
    gateway = start(context, says: "again")
    assert Readiness.await(gateway, 5_000) == :ok
    gateway |> Module.concat(Discovery) |> Process.whereis() |> Process.exit(:kill)
    assert Readiness.await(gateway, 5_000) == :ok
    assert get(gateway, context.host) == {200, "again"}
  end
end
