defmodule ExServiceMeshRouter.Console.IndexTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.Json

  defp ask(gateway, host, headers \\ [], line \\ "GET / HTTP/1.1") do
    fields = for {name, value} <- headers, do: "#{name}: #{value}\r\n"

    gateway
    |> url()
    |> RawClient.exchange("#{line}\r\nHost: #{host}\r\n#{fields}Connection: close\r\n\r\n")
  end

  defp body(bytes), do: bytes |> answer() |> elem(1)
  defp status(bytes), do: bytes |> answer() |> elem(0)

  defp json(bytes) do
    {:ok, value} = bytes |> body() |> Json.decode()
    value
  end

  defp indexed(options \\ []) do
    [index: true, services: %{"auth.localhost" => "http://127.0.0.1:9"}]
    |> Keyword.merge(options)
    |> start_gateway()
  end

  describe "without the index" do
    test "an unknown host gets the data plane's 404" do
      gateway = start_gateway()
      assert ask(gateway, "localhost") =~ "unknown service: localhost\n"
      refute ask(gateway, "localhost") =~ "content-security-policy"
    end
  end

  describe "a client that is not allowed to see the index" do
    test "gets in every form the data plane's 404" do
      # Behind a trusted proxy, so that a test can be somebody else.
      options = [trusted_proxies: ["127.0.0.1"], services: %{"a.local" => "http://127.0.0.1:9"}]
      without = start_gateway([index: false] ++ options)
      with_it = start_gateway([index: [allow: ["192.0.2.0/24"]]] ++ options)

      for accept <- ["*/*", "text/html,*/*;q=0.8", "application/json"],
          host <- ["b.local", "localhost", "127.0.0.1", "Evil.example:80"],
          path <- ["/", "/.mesh/page.css"] do
        headers = [{"Accept", accept}, {"X-Forwarded-For", "203.0.113.9"}]
        line = "GET #{path} HTTP/1.1"
        bare = ask(without, host, headers, line)
        assert ask(with_it, host, headers, line) |> essence() == essence(bare)
      end

      allowed = [{"X-Forwarded-For", "192.0.2.7"}]
      assert ask(with_it, "localhost", allowed) |> status() == 200
      assert ask(with_it, "localhost") |> status() == 200
      # A request without a host has none to be told of.
      bare =
        RawClient.exchange(url(without), "GET / HTTP/1.0\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")

      seen =
        RawClient.exchange(url(with_it), "GET / HTTP/1.0\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")

      assert essence(seen) == essence(bare)
    end

    # Status, body, and the fields that say something about it.
    defp essence(bytes) do
      [head, body] = String.split(bytes, "\r\n\r\n", parts: 2)
      [status | fields] = String.split(head, "\r\n")
      status = String.replace(status, "HTTP/1.0", "HTTP/1.1")

      fields =
        for field <- fields,
            field = String.downcase(field),
            not String.starts_with?(field, ["date:", "connection:", "x-request-id:"]),
            do: field

      {status, Enum.sort(fields), body}
    end

    test "cannot claim an allowed address" do
      gateway = start_gateway(index: true, ip: {127, 0, 0, 1})
      assert ask(gateway, "localhost", [{"X-Forwarded-For", "203.0.113.9"}]) |> status() == 200
      proxied = start_gateway(index: true, trusted_proxies: ["127.0.0.1"])
      chain = [{"X-Forwarded-For", "127.0.0.1, 203.0.113.9"}]
      assert ask(proxied, "localhost", chain) |> body() == "unknown service: localhost\n"
    end
  end

  describe "the page" do
    test "has status 200 for the gateway's names and addresses, and 404 for others" do
      gateway = indexed()

      for host <- ["localhost", "localhost:4000", "127.0.0.1", "[::1]:4000", "mesh.localhost"] do
        assert {200, text} = gateway |> ask(host) |> answer()
        assert text =~ ~r{^auth\.localhost +up +http://auth\.localhost:\d+/ +http://127.0.0.1:9 }m
      end

      assert {404, text} = gateway |> ask("billing.localhost") |> answer()
      assert text =~ "unknown service: billing.localhost\n"
      assert text =~ ~r/^auth\.localhost +up/m
      assert ask(gateway, "localhost", [], "GET /users HTTP/1.1") |> status() == 404
      assert RawClient.exchange(url(gateway), "GET / HTTP/1.0\r\n\r\n") |> status() == 200
    end

    test "has the form of the Accept field" do
      gateway = indexed()
      html = ask(gateway, "localhost", [{"Accept", "text/html,application/xhtml+xml,*/*"}])
      assert html =~ "content-type: text/html; charset=utf-8"
      assert html =~ "content-security-policy: default-src 'none';"
      port = ExServiceMeshRouter.port(gateway)
      assert html =~ ~s|<a href="http://auth.localhost:#{port}/">auth.localhost</a>|
      # The policy allows nothing inline and nothing from elsewhere.
      refute html =~
               ~r/<style|style=|<script(?! src="\/\.mesh)|https?:\/\/(?!auth|localhost|127|www\.w3)/

      json = ask(gateway, "auht.localhost", [{"Accept", "application/json"}])
      assert status(json) == 404

      assert %{
               "asked" => "auht.localhost",
               "nearest" => "auth.localhost",
               "services" => [service]
             } = json(json)

      assert %{"hosts" => ["auth.localhost"], "state" => "listening", "source" => "config"} =
               service
    end

    test "loads its assets from its own host" do
      gateway = indexed()

      for host <- ["localhost", "nobody.localhost"],
          file <- ["page.css", "page.js", "icon.svg"] do
        assert ask(gateway, host, [], "GET /.mesh/#{file} HTTP/1.1") |> status() == 200
      end

      assert ask(gateway, "localhost", [], "GET /.mesh/../mix.exs HTTP/1.1") |> status() == 404
    end

    test "suggests the nearest host with the tenant, if it is similar enough" do
      gateway = indexed()
      assert ask(gateway, "auht.localhost") =~ "did you mean auth.localhost?"
      assert ask(gateway, "t1.auht.localhost") =~ "did you mean t1.auth.localhost?"
      refute ask(gateway, "xyzzyx.test") =~ "did you mean"
    end

    test "lists services, and is not one itself" do
      gateway = indexed()
      assert ask(gateway, "later.localhost") |> status() == 404
      ExServiceMeshRouter.put_service(gateway, "later.localhost", start_server("later"))
      assert get(gateway, "later.localhost") == {200, "later"}
      assert ask(gateway, "localhost") =~ ~r/^later\.localhost +up/m

      assert ["auth.localhost", "later.localhost"] =
               gateway |> ExServiceMeshRouter.services() |> Enum.map(& &1.name)

      assert ExServiceMeshRouter.resolve(gateway, "nobody.localhost") == nil
      assert ExServiceMeshRouter.resolve(gateway, "mesh.localhost") == nil

      assert %{rule: :none, status: 404} =
               ExServiceMeshRouter.explain(gateway, "nobody.localhost")

      assert %{gateway: %{requests_unrouted: 2}, services: services} =
               ExServiceMeshRouter.stats(gateway)

      assert services |> Map.keys() |> Enum.sort() == ["auth.localhost", "later.localhost"]
    end

    test "gives way to a default and to a service with its host" do
      url = start_server("mine")
      gateway = indexed(services: %{"mesh.localhost" => url}, default: "mesh.localhost")
      assert get(gateway, "mesh.localhost") == {200, "mine"}
      assert get(gateway, "nobody.localhost") == {200, "mine"}
      # What tools ask for is always there.
      assert ask(gateway, "mesh.invalid") |> status() == 200
    end

    test "accepts only GET and HEAD, and survives request bodies" do
      gateway = indexed()
      body = String.duplicate("x", 100_000)

      reply =
        RawClient.exchange(
          url(gateway),
          "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n" <>
            body
        )

      assert status(reply) == 405
      assert {200, ""} = ask(gateway, "localhost", [], "HEAD / HTTP/1.1") |> answer()
    end
  end

  describe "a host name that another owner may have" do
    test "gets a link to the page and not the page" do
      gateway = indexed()

      for accept <- ["text/html", "application/json", "*/*"] do
        assert {404, body} =
                 gateway |> ask("rebound.example.com", [{"Accept", accept}]) |> answer()

        assert body =~ "http://127.0.0.1:#{ExServiceMeshRouter.port(gateway)}/"
        refute body =~ "auth.localhost"
      end
    end

    test "can have any valid character and length" do
      gateway = indexed(services: %{"auth.attacker.com" => "http://127.0.0.1:9"})
      long = String.duplicate("a.", 123) <> "evil.com"
      assert byte_size(long) > 253

      for host <-
            ["a~b.attacker.com", "a!b.attacker.com", "a*b.attacker.com", long] ++
              ["A$&'()+,;=b.attacker.com:80", "a%41.attacker.com", "attacker.com"] do
        assert {404, body} = gateway |> ask(host) |> answer()
        assert body =~ "http://127.0.0.1:#{ExServiceMeshRouter.port(gateway)}/", host
        refute body =~ "auth.attacker.com", host
      end
    end

    test "includes names beside a host on a shared domain" do
      services =
        for host <- ["shop.co.uk", "app.github.io", "app.example.com", "x-1.a.run.app"],
            into: %{"shop.example.co.uk" => "http://127.0.0.1:9"},
            do: {host, "http://127.0.0.1:9"}

      gateway = indexed(services: services)

      for host <- ["evil.co.uk", "evil.github.io", "evil.example.com", "x-2.a.run.app"],
          do: refute(ask(gateway, host) =~ "shop.example.co.uk", host)

      assert ask(gateway, "shpo.example.co.uk") =~ "did you mean shop.example.co.uk?"
    end

    test "includes hosts that cannot be parsed" do
      # Past the gateway, which would not route it.
      gateway = indexed()
      {:ok, path} = ExServiceMeshRouter.Console.Index.socket(gateway)

      for host <- ["Host: a b\r\n", "Host: a\r\nHost: localhost\r\n", ""] do
        {:ok, socket} = :gen_tcp.connect({:local, path}, 0, [:binary, active: false])
        :gen_tcp.send(socket, "GET / HTTP/1.1\r\n#{host}X-Forwarded-For: 127.0.0.1\r\n\r\n")
        refute RawClient.read_to_end(socket) =~ "auth.localhost"
      end
    end

    test "excludes names beside a known host" do
      gateway = indexed(services: %{"auth.corp.example.com" => "http://127.0.0.1:9"})
      assert ask(gateway, "auht.corp.example.com") =~ "did you mean auth.corp.example.com?"
      refute ask(gateway, "auht.example.com") =~ "did you mean"
    end
  end

  test "a client without X-Forwarded-For is not allowed" do
    {:ok, %{index: networks}} = ExServiceMeshRouter.Config.new(index: true)
    allowed? = &ExServiceMeshRouter.Console.Index.Access.allowed?(&1, networks)
    assert allowed?.([{"x-forwarded-for", "127.0.0.1"}])
    assert allowed?.([{"x-forwarded-for", "::ffff:127.0.0.1"}])
    refute allowed?.([{"x-forwarded-for", "127.0.0.1, garbage"}])
    refute allowed?.([{"x-forwarded-for", "garbage"}])
    refute allowed?.([])
    refute allowed?.([{"x-forwarded-for", "localhost"}])
    refute allowed?.([{"x-forwarded-for", "127.0.0.1"}, {"x-forwarded-for", "127.0.0.1"}])
  end

  test "the text form has no control characters" do
    gateway = indexed(services: %{"x.local" => "unix:/tmp/\e[2J"})
    assert ask(gateway, "localhost") =~ "unix:/tmp/?[2J"
  end

  test "the page escapes what clients send" do
    gateway = indexed(services: %{"x.local" => "unix:/tmp/<script>alert(1)</script>&\"'"})
    html = ask(gateway, "localhost", [{"Accept", "text/html"}])
    refute html =~ "<script>alert"
    assert html =~ "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#39;"
    json = ask(gateway, "localhost", [{"Accept", "application/json"}])
    refute json =~ "<script>"
    assert %{"services" => [%{"upstreams" => ["unix:/tmp/<script>" <> _]}]} = json(json)
  end

  test "its socket is in a private directory and is removed with it" do
    gateway = start_gateway(index: true)
    {:ok, path} = ExServiceMeshRouter.Console.Index.socket(gateway)
    assert File.exists?(path)
    assert %File.Stat{mode: mode} = File.stat!(Path.dirname(path))
    assert Bitwise.band(mode, 0o777) == 0o700
    stop_supervised!(gateway)
    refute File.exists?(path)
  end

  test "a killed server is restarted and affects nothing else" do
    gateway = indexed()
    supervisor = Process.whereis(Module.concat(gateway, Supervisor))

    %{ExServiceMeshRouter.Console.Index => index, ExServiceMeshRouter.Http.Server => server} =
      Map.new(ExServiceMeshRouter.Tree.processes(gateway))

    {:links, links} = Process.info(server, :links)
    monitors = for pid <- links, pid != index, is_pid(pid), do: Process.monitor(pid)

    capture_log(fn ->
      Process.exit(server, :kill)
      for monitor <- monitors, do: assert_receive({:DOWN, ^monitor, :process, _, _}, 5_000)
      eventually(200, fn -> gateway |> ask("localhost") |> status() end)
    end)

    assert Process.whereis(Module.concat(gateway, Supervisor)) == supervisor
  end
end
