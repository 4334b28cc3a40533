defmodule ExServiceMeshRouter.Registry.ResolverTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.Tree
  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Registry.{Resolver, Service}

  test "used/1 returns each name once" do
    services = [
      Service.static("a", [%{kind: :name, host: "db", port: 1}, Upstream.unix("/s")], :config),
      Service.static(
        "b",
        [
          %{kind: :name, host: "db", port: 2},
          %{kind: :name, host: "web", port: 1},
          Upstream.tcp({127, 0, 0, 1}, 1)
        ],
        :config
      )
    ]

    assert Resolver.used(services) == ["db", "web"]
    assert Resolver.used([]) == []
  end

  test "lookup/1 returns addresses or an error" do
    assert {:ok, [_ | _]} = Resolver.lookup("localhost")
    assert Resolver.lookup("nobody.invalid") == :error
  end

  test "a service at a host name is reached, and put_service/2 refuses an unknown host name" do
    %URI{port: port} = URI.parse(start_server("named"))
    gateway = start_gateway(services: %{"a.local" => "http://localhost:#{port}"})
    eventually({200, "named"}, fn -> get(gateway, "a.local") end)
    assert :ok = ExServiceMeshRouter.put_service(gateway, "b.local", "http://localhost:#{port}")
    assert get(gateway, "b.local") == {200, "named"}

    assert {:error, "upstream: nobody.invalid has no address"} =
             ExServiceMeshRouter.put_service(gateway, "c.local", "http://nobody.invalid:80")
  end

  test "a configured host name without an address is logged" do
    log =
      capture_log(fn ->
        gateway = start_gateway(services: %{"a.local" => "http://nobody.invalid:80"})

        # It answers once it has looked.
        %{Resolver => pid} = Map.new(Tree.processes(gateway))
        :sys.get_state(pid, 20_000)
        assert {503, _} = get(gateway, "a.local")
      end)

    assert log =~
             "upstream nobody.invalid has no address and gets no requests; the gateway looks it up again every 30 s"
  end
end
