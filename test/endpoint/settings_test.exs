defmodule ExServiceMeshRouter.Endpoint.SettingsTest do
  # Not async: whether Phoenix serves is the VM's.
  use ExUnit.Case

  alias ExServiceMeshRouter.Endpoint.Settings

  @any4 {0, 0, 0, 0}
  @any6 {0, 0, 0, 0, 0, 0, 0, 0}

  # `server:` wins over `mix phx.server` even as `nil`, as `System.get_env("PHX_SERVER")` may be.
  test "serves?/1 follows Phoenix's rule" do
    on_exit(fn -> Application.delete_env(:phoenix, :serve_endpoints) end)

    for serve? <- [true, false] do
      Application.put_env(:phoenix, :serve_endpoints, serve?)
      assert Settings.serves?([]) == serve?
      assert Settings.serves?(server: "true")
      refute Settings.serves?(server: nil)
      refute Settings.serves?(server: false)
    end
  end

  test "read/3 distinguishes nil from a missing key" do
    defmodule Running do
      def config(:server, _default), do: nil
      def config(_key, default), do: default
    end

    assert Settings.read(Running, :nowhere, [:http, :server]) == [server: nil]
  end

  test "listener/1 follows the adapters' defaults" do
    for {http, where} <- [
          {[], {:tcp, @any4, 4000}},
          {[ip: :any], {:tcp, @any4, 4000}},
          {[:inet6], {:tcp, @any6, 4000}},
          {[:inet6, port: 4001, ip: :loopback], {:tcp, {0, 0, 0, 0, 0, 0, 0, 1}, 4001}},
          {[port: 1, net: :inet6], {:tcp, @any6, 1}},
          {[ip: :loopback, port: 0], {:tcp, {127, 0, 0, 1}, 0}},
          {[ip: {10, 0, 0, 5}, port: "4001"], {:tcp, {10, 0, 0, 5}, 4001}},
          {[ip: {:local, ~c"/run/a"}, port: 0], {:unix, "/run/a"}},
          {[port: nil], :unknown},
          {[port: {:system, "NOT_SET_ANYWHERE"}], :unknown},
          {[port: 65_536], :unknown},
          {[ip: "127.0.0.1"], :unknown},
          {false, nil},
          {nil, nil}
        ],
        do: assert(Settings.listener(http) == where)
  end

  test "links/1 follows Phoenix's rule" do
    for {settings, address} <- [
          {[], {"http", "localhost", 80}},
          {[http: [ip: :any]], {"http", "localhost", 80}},
          {[http: [:inet6, port: 4001], url: [host: "a.test"]], {"http", "a.test", 4001}},
          {[http: [port: 4001], https: []], {"https", "localhost", 443}},
          {[http: false, https: [port: 4443]], {"https", "localhost", 4443}},
          {[http: [port: 4001], url: [port: "443", scheme: "https"]],
           {"https", "localhost", 443}},
          {[url: nil], {"http", "localhost", 80}},
          {[url: [host: {:system, "NOT_SET_ANYWHERE"}]], {"http", "localhost", 80}}
        ] do
      links = Settings.links(settings)
      assert {links.scheme, links.host, links.port} == address
      assert links.explicit? == Keyword.has_key?(settings[:url] || [], :port)
    end
  end

  describe "an address" do
    test "is that of `http:`" do
      assert Settings.address(ip: {127, 0, 0, 1}, port: 4001) == {{127, 0, 0, 1}, 4001}
      assert Settings.address(port: "4001") == {{0, 0, 0, 0}, 4001}
      assert {_any, 4000} = Settings.address([])
      assert {_any, 4002} = Settings.address([:inet6, port: 4002])
    end

    test "is nil if `http:` takes no port" do
      for http <- [nil, false, [port: 0], [port: "x"], [ip: {:local, "/s"}, port: 0]],
          do: assert(Settings.address(http) == nil, inspect(http))
    end

    test "overlaps with another that cannot be used at the same time" do
      any4 = {{0, 0, 0, 0}, 1}
      any6 = {{0, 0, 0, 0, 0, 0, 0, 0}, 1}
      one = {{127, 0, 0, 1}, 1}
      other = {{127, 0, 0, 2}, 1}
      six = {{0, 0, 0, 0, 0, 0, 0, 1}, 1}

      for {a, b, overlap?} <- [
            {one, one, true},
            {one, other, false},
            {one, any4, true},
            {one, any6, true},
            {six, any6, true},
            {six, any4, false},
            {six, one, false},
            {any4, any6, true},
            {one, {{127, 0, 0, 1}, 2}, false},
            {one, nil, false},
            {nil, nil, false}
          ] do
        assert Settings.overlap?(a, b) == overlap?, inspect({a, b})
        assert Settings.overlap?(b, a) == overlap?, inspect({b, a})
      end
    end
  end
end
