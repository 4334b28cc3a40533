defmodule ExServiceMeshRouter.RegistryTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.Http.Server

  describe "configured services" do
    test "are found by exact host, by the longest suffix, by default; else 404" do
      gateway =
        start_gateway(
          services: %{
            "auth.local" => start_server("auth"),
            "eu.auth.local" => start_server("eu"),
            "billing.local" => start_server("billing")
          }
        )

      assert get(gateway, "auth.local") == {200, "auth"}
      assert get(gateway, "AUTH.local.:4000") == {200, "auth"}
      assert get(gateway, "tenant1.auth.local") == {200, "auth"}
      assert get(gateway, "tenant1.eu.auth.local") == {200, "eu"}
      assert get(gateway, "billing.local") == {200, "billing"}
      assert {404, "unknown service: local" <> _} = get(gateway, "local")

      with_default =
        start_gateway(services: %{"auth.local" => start_server("auth")}, default: "auth.local")

      assert get(with_default, "nobody.example") == {200, "auth"}
    end

    test "can be on a Unix socket, on IPv6, or at a host name" do
      path = Path.join(System.tmp_dir!(), "mesh-#{System.unique_integer([:positive])}.sock")
      on_exit(fn -> File.rm(path) end)
      handler = &{{200, [], "here"}, &1}
      start_supervised!({Server, handler: handler, ip: {:local, path}}, id: :unix)
      v6 = start_supervised!({Server, handler: handler, ip: {0, 0, 0, 0, 0, 0, 0, 1}}, id: :v6)
      %URI{port: port} = URI.parse(start_server("here"))

      gateway =
        start_gateway(
          services: %{
            "unix.local" => "unix:" <> path,
            "v6.local" => Server.url(v6),
            "name.local" => "http://localhost:#{port}"
          }
        )

      assert get(gateway, "unix.local") == {200, "here"}
      assert get(gateway, "v6.local") == {200, "here"}
      eventually({200, "here"}, fn -> get(gateway, "name.local") end)
    end
  end

  describe "at run time" do
    test "a service is routed when put_service/2 returns, and gone after delete_service/1" do
      gateway = start_gateway()
      assert :ok = ExServiceMeshRouter.put_service(gateway, "new.local", start_server("first"))
      assert get(gateway, "t1.new.local") == {200, "first"}
      assert :ok = ExServiceMeshRouter.put_service(gateway, "New.local", start_server("second"))
      assert get(gateway, "new.local") == {200, "second"}
      assert :ok = ExServiceMeshRouter.delete_service(gateway, "new.local")
      assert {404, _} = get(gateway, "new.local")

      assert {:error, "there is no service new.local" <> _} =
               ExServiceMeshRouter.delete_service(gateway, "new.local")
    end

    test "errors name the wrong value" do
      gateway = start_gateway()
      put = &ExServiceMeshRouter.put_service(gateway, &1, &2)
      assert {:error, ~s|host: got "a b", expected| <> _} = put.("a b", "http://127.0.0.1:1")
      assert {:error, ~s|host: got "a:80", expected| <> _} = put.("a:80", "http://127.0.0.1:1")
      assert {:error, ~s|upstream: got "ftp://x", expected| <> _} = put.("a.local", "ftp://x")
      assert {:error, "upstream: got [], expected" <> _} = put.("a.local", [])

      assert {:error, "upstream: no-such-name.invalid has no address"} =
               put.("a.local", "http://no-such-name.invalid:80")

      assert ExServiceMeshRouter.services(gateway) == []
    end

    test "many services that are put at the same time are all routed" do
      gateway = start_gateway()
      url = start_server("one of many")

      capture_log(fn ->
        1..200
        |> Task.async_stream(
          &ExServiceMeshRouter.put_service(gateway, "s#{&1}.local", url),
          max_concurrency: 50
        )
        |> Enum.each(&assert &1 == {:ok, :ok})
      end)

      assert length(ExServiceMeshRouter.services(gateway)) == 200
      assert get(gateway, "s200.local") == {200, "one of many"}
    end

    test "services, resolve, port and stats agree with the routes" do
      url = start_server("auth")
      gateway = start_gateway(services: %{"auth.local" => url})

      service = %{
        name: "auth.local",
        hosts: ["auth.local"],
        upstreams: [url],
        state: :listening,
        source: :config,
        application: nil,
        endpoint: nil,
        peers: [],
        in_vm: false
      }

      assert [%{since: %DateTime{} = since}] = ExServiceMeshRouter.services(gateway)
      service = Map.put(service, :since, since)
      assert ExServiceMeshRouter.services(gateway) == [service]
      assert ExServiceMeshRouter.resolve(gateway, "T1.Auth.local:4000") == service
      assert ExServiceMeshRouter.resolve(gateway, "billing.local") == nil
      assert ExServiceMeshRouter.resolve(gateway, "no host at all") == nil
      assert ExServiceMeshRouter.port(gateway) in 1..65_535

      get(gateway, "auth.local")
      get(gateway, "billing.local")

      assert %{gateway: %{requests_unrouted: 1}, services: %{"auth.local" => %{requests: 1}}} =
               ExServiceMeshRouter.stats(gateway)
    end

    test "functions return empty results without a gateway" do
      assert ExServiceMeshRouter.services(NoGateway) == []
      assert ExServiceMeshRouter.resolve(NoGateway, "auth.local") == nil
      assert ExServiceMeshRouter.port(NoGateway) == nil
      assert ExServiceMeshRouter.stats(NoGateway) == %{gateway: %{}, services: %{}}

      assert {:error, "the gateway is not running" <> _} =
               ExServiceMeshRouter.put_service(NoGateway, "a.local", "http://127.0.0.1:1")
    end
  end

  test "a service that does not answer gives its client a 502 and affects no other" do
    closed = free_port()

    gateway =
      start_gateway(
        services: %{
          "dead.local" => "http://127.0.0.1:#{closed}",
          "live.local" => start_server("hi")
        }
      )

    assert {502, _} = get(gateway, "dead.local")
    assert get(gateway, "live.local") == {200, "hi"}
  end

  test "each change is logged once, in one line" do
    log =
      capture_log(fn ->
        gateway = start_gateway()
        ExServiceMeshRouter.put_service(gateway, "line.local", "http://127.0.0.1:9001")
        ExServiceMeshRouter.put_service(gateway, "line.local", "http://127.0.0.1:9001")
        ExServiceMeshRouter.put_service(gateway, "line.local", "http://127.0.0.1:9002")
        ExServiceMeshRouter.delete_service(gateway, "line.local")
        # A change is logged behind its answer, and before the next one.
        assert ExServiceMeshRouter.services(gateway) == []
      end)

    assert [
             "route line.local -> line.local at 127.0.0.1:9001",
             "route line.local -> line.local moved to 127.0.0.1:9002",
             "route line.local -> line.local removed"
           ] = Regex.scan(~r/route line\.local.*/, log) |> List.flatten() |> Enum.map(&plain/1)
  end

  defp plain(line), do: String.replace(line, ~r/\e\[[0-9;]*m/, "")
end
