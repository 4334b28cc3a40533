defmodule ExServiceMeshRouter.ConfigTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.{Config, ConfigError}
  alias ExServiceMeshRouter.Config.{Options, Type, Upstream}

  defp mistakes(options) do
    {:error, %ConfigError{} = error} = Config.new(options)
    Exception.message(error)
  end

  test "defaults match the documentation" do
    assert {:ok, config} = Config.new([])
    assert config.port == 4000
    assert config.native.ips == ["127.0.0.1", "::1"]
    assert config.native.workers == max(1, div(System.schedulers_online(), 4))

    assert config.timeouts == %{
             connect: 2_000,
             head: 10_000,
             idle: 75_000,
             upstream_idle: 3_000,
             response: :infinity,
             hold: 0,
             tunnel_idle: :infinity,
             drain: 30_000,
             lame_duck: 0
           }

    assert %{head_bytes: 65_536, header_count: 100, body_bytes: nil} = config.native.limits
    assert config.native.limits.connections in 64..65_536
  end

  test "every key is documented with its default" do
    {:docs_v1, _, _, _, %{"en" => doc}, _, _} = Code.fetch_docs(Config)

    for option <- Options.all(), it <- [option | Type.members(option.type)] do
      assert doc =~ ~r/\| `(#{option.key}: )?#{it.key}` \|/, "#{it.key} is not documented"
    end
  end

  test "the typespec has every option" do
    {:ok, types} = Code.Typespec.fetch_types(Config)
    {:type, option} = Enum.find(types, &match?({:type, {:option, _, _}}, &1))
    spec = option |> Code.Typespec.type_to_quoted() |> Macro.to_string()

    for option <- Options.all(), it <- [option | Type.members(option.type)] do
      assert spec =~ ~r/[:\s]#{it.key}\b/, "#{it.key} is not in the type"
    end
  end

  test "all errors are reported at once, each with the value and what is expected" do
    message =
      mistakes(
        port: 70_000,
        ip: "127.0.0.1",
        server: "yes",
        workers: 0,
        services: %{"legacy.local" => "https://127.0.0.1:9001", "a b" => "http://127.0.0.1:1"},
        discover: [only: AuthWeb.Endpoint],
        default: "auth.local:4000",
        private_listeners: :some,
        http2: :all,
        dev_domain: "auth.local:4000",
        trusted_proxies: ["10.0.0.0/33"],
        timeouts: [connect: "2s", drain: -1],
        limits: [head_bytes: 10, connections: 0]
      )

    for line <- [
          ~s|port: got 70000, expected an integer from 0 to 65535|,
          ~s|ip: got "127.0.0.1", expected :loopback, :any, an address tuple such as {127, 0, 0, 1}|,
          ~s|server: got "yes", expected true or false|,
          ~s|workers: got 0, expected an integer from 1 to|,
          ~s|services["legacy.local"]: got "https://127.0.0.1:9001", expected "http://HOST:PORT"|,
          ~s|services: got "a b", expected a host name without a port as the key|,
          ~s|discover.only: got AuthWeb.Endpoint, expected a list of applications|,
          ~s|default: got "auth.local:4000", expected a host name without a port|,
          ~s|private_listeners: got :some, expected :auto, :never, :all, or a list of endpoint|,
          ~s|http2: got :all, expected a list of endpoint modules|,
          ~s|dev_domain: got "auth.local:4000", expected a domain such as "localhost", or nil|,
          ~s|trusted_proxies: got "10.0.0.0/33", expected addresses or CIDR blocks|,
          ~s|timeouts.connect: got "2s", expected milliseconds (1 or more) or :infinity|,
          ~s|timeouts.drain: got -1, expected milliseconds (0 or more) or :infinity|,
          ~s|limits.head_bytes: got 10, expected bytes from 1024|,
          ~s|limits.connections: got 0, expected an integer (1 or more) or :infinity|
        ] do
      assert message =~ line
    end
  end

  test "an endpoint is not both in the VM and over HTTP/2" do
    assert {:ok, %{http2: []}} = Config.new([])
    assert {:ok, %{http2: [AWeb.Endpoint]}} = Config.new(http2: [AWeb.Endpoint], in_vm: :auto)
    assert {:ok, _config} = Config.new(http2: [AWeb.Endpoint], in_vm: [BWeb.Endpoint])

    assert mistakes(http2: [AWeb.Endpoint, BWeb.Endpoint], in_vm: [BWeb.Endpoint]) =~
             "http2: got BWeb.Endpoint, expected endpoints that `in_vm` does not name"
  end

  test "dev_domain accepts any name, and is nil outside of development" do
    assert {:ok, %{dev_domain: nil}} = Config.new([])
    assert {:ok, %{dev_domain: nil}} = Config.new(dev_domain: nil)
    assert {:ok, %{dev_domain: nil}} = Config.new(dev_domain: false)
    assert {:ok, %{dev_domain: "lvh.me"}} = Config.new(dev_domain: "Lvh.me.")
    assert mistakes(dev_domain: "127.0.0.1") =~ ~s|dev_domain: got "127.0.0.1", expected|
    assert mistakes(dev_domain: true) =~ "dev_domain: got true, expected"
  end

  test "the index is off outside of development, and has the allowed networks" do
    assert {:ok, %{index: nil}} = Config.new([])
    assert {:ok, %{index: nil}} = Config.new(index: :auto)
    assert {:ok, %{index: nil}} = Config.new(index: false)
    assert {:ok, %{index: [_v4, _v6]}} = Config.new(index: true)
    assert {:ok, %{index: [_v4, _v6, _more]}} = Config.new(index: [allow: ["10.0.0.0/8"]])

    assert mistakes(index: [allow: ["10.0.0.0/99"]]) =~
             ~s|index.allow: got "10.0.0.0/99", expected|

    assert mistakes(index: :yes) =~ "index: got :yes, expected :auto, true, false, or [allow:"
  end

  test "an unknown key is reported with the nearest known key" do
    assert mistakes(prot: 4000) =~ "prot: unknown key, did you mean port? Known keys: port, ip,"

    assert mistakes(timeouts: [conect: 1]) =~
             "timeouts.conect: unknown key, did you mean connect?"

    assert mistakes(limits: [conections: 1]) =~ "did you mean connections?"
    assert mistakes(discover: [exept: []]) =~ "discover.exept: unknown key, did you mean except?"
  end

  test "a value that must be a keyword list and is not is an error" do
    assert mistakes(timeouts: 5_000) =~ "timeouts: got 5000, expected a keyword list such as"
    assert mistakes(limits: :none) =~ "limits: got :none, expected a keyword list"

    assert mistakes(services: ["legacy.local"]) =~
             "services: got [\"legacy.local\"], expected a map"

    assert mistakes(services: :none) =~ "services: got :none, expected a map"

    assert mistakes(trusted_proxies: "10.0.0.0/8") =~
             "trusted_proxies: got \"10.0.0.0/8\", expected"

    assert mistakes(discover: :yes) =~ "discover: got :yes, expected true, false, or [only:"
    assert mistakes(ip: []) =~ "ip: got [], expected"
    assert mistakes(ip: [{1, 2}]) =~ "ip: got {1, 2}, expected"
  end

  test "lame_duck and buffer_bytes cannot be infinite" do
    assert {:ok, config} =
             Config.new(timeouts: [lame_duck: 5_000], limits: [buffer_bytes: 1_000_000])

    assert config.timeouts.lame_duck == 5_000
    assert config.native.limits.buffer_bytes == 1_000_000

    assert mistakes(timeouts: [lame_duck: :infinity]) =~
             "timeouts.lame_duck: got :infinity, expected milliseconds (0 or more)"

    assert mistakes(limits: [buffer_bytes: :infinity]) =~
             "limits.buffer_bytes: got :infinity, expected bytes (0 or more)"
  end

  test "too many workers are refused with the reason" do
    schedulers = :erlang.system_info(:dirty_io_schedulers)
    assert {:ok, _} = Config.new(workers: schedulers - 2)

    assert mistakes(workers: schedulers - 1) =~
             "at most #{schedulers - 2}: each worker takes one of"
  end

  test "services accept all forms of an upstream" do
    services = %{
      "V4.local." => "http://127.0.0.1:9001",
      "v6.local" => "http://[::1]:9001/",
      "name.local" => "http://somehost:9001",
      "sock.local" => "unix:/run/app.sock",
      "two.local" => ["http://127.0.0.1:9001", "unix:/run/app.sock"]
    }

    assert {:ok, config} = Config.new(services: services)

    assert config.services == %{
             "v4.local" => [Upstream.tcp({127, 0, 0, 1}, 9001)],
             "v6.local" => [Upstream.tcp({0, 0, 0, 0, 0, 0, 0, 1}, 9001)],
             "name.local" => [%{kind: :name, host: "somehost", port: 9001}],
             "sock.local" => [Upstream.unix("/run/app.sock")],
             "two.local" => [Upstream.tcp({127, 0, 0, 1}, 9001), Upstream.unix("/run/app.sock")]
           }
  end

  test "invalid upstreams are refused" do
    for wrong <- [
          "127.0.0.1:9001",
          "http://127.0.0.1:0",
          "http://127.0.0.1:9001/path",
          "http://user@127.0.0.1:9001",
          "http://:9001",
          "unix:relative.sock",
          "unix:/" <> String.duplicate("x", 108),
          "",
          [],
          nil,
          {127, 0, 0, 1}
        ] do
      assert mistakes(services: %{"a.local" => wrong}) =~ ~s|services["a.local"]: got |
    end
  end

  test "trusted_proxies accepts addresses and blocks of both families" do
    proxies = ["10.0.0.0/8", "192.168.1.1", "fd00::/8", "::1"]
    assert {:ok, config} = Config.new(trusted_proxies: proxies)

    assert config.native.trusted_proxies ==
             ["10.0.0.0/8", "192.168.1.1/32", "fd00::/8", "::1/128"]
  end

  test "server?/1 follows Phoenix's rule" do
    assert Config.server?(server: true)
    refute Config.server?(server: false)
    refute Config.server?([])
  end

  describe "observability options" do
    test "are off by default, except for request ids" do
      assert {:ok, config} = Config.new([])
      assert %{request_id: true, trace: nil, server_timing: false} = config.native
      assert config.observe == %{access_log: nil, sample: 0.0}
      assert config.metrics == nil
    end

    test "are checked" do
      assert {:ok, config} =
               Config.new(
                 request_id: false,
                 trace: :start,
                 server_timing: true,
                 telemetry: [sample: 0.01],
                 access_log: [format: :json, to: "/tmp/log", query: true],
                 metrics: [host: "Metrics.Internal"]
               )

      assert %{request_id: false, trace: :start, server_timing: true} = config.native
      assert config.observe.sample == 0.01
      assert config.observe.access_log == %{format: :json, to: "/tmp/log", query: true}
      assert config.metrics.host == "metrics.internal"

      text =
        mistakes(
          request_id: 1,
          trace: true,
          telemetry: [sample: 2, sampel: 1],
          access_log: [format: :xml, to: 1],
          metrics: [port: 1, host: "a"]
        )

      for line <- [
            "request_id: got 1, expected true or false",
            "trace: got true, expected :start or nil",
            "telemetry.sample: got 2, expected a share of the requests from 0.0 to 1.0, or false",
            "telemetry.sampel: unknown key, did you mean sample?",
            "access_log.format: got :xml, expected :common, :combined, :json or :logfmt",
            "access_log.to: got 1, expected the path of a file or :logger",
            "metrics: got [port: 1, host: \"a\"], expected either a port or a host"
          ] do
        assert text =~ line
      end
    end
  end

  describe "mesh" do
    defp mesh(value) do
      {:ok, config} = Config.new(mesh: value)
      config.mesh
    end

    test "is off by default, and true means the defaults" do
      assert mesh(false) == nil
      assert {:ok, %{mesh: nil}} = Config.new([])

      assert mesh(true) == %{
               port: 0,
               ip: nil,
               advertise: nil,
               services: :all,
               prefer: 2,
               lame_duck: 0
             }
    end

    test "advertise is an address or a name, with or without a port" do
      for {given, read} <- [
            {"10.0.0.5", {"10.0.0.5", nil}},
            {"10.0.0.5:4600", {"10.0.0.5", 4600}},
            {"fdaa::3", {"fdaa::3", nil}},
            {"[fdaa::3]:4600", {"fdaa::3", 4600}},
            {"node1.example.com:4600", {"node1.example.com", 4600}},
            {{10, 0, 0, 5}, {"10.0.0.5", nil}},
            {{{10, 0, 0, 5}, 4600}, {"10.0.0.5", 4600}},
            {{"node1", 4600}, {"node1", 4600}}
          ] do
        assert {given, mesh(advertise: given).advertise} == {given, read}
      end
    end

    test "every mistake says what would be right" do
      message =
        mistakes(
          mesh: [
            port: 70_000,
            ip: "::",
            advertise: "10.0.0.5:0",
            services: [BillingWeb.Endpoint],
            prefer: :local,
            lame_duck: -1,
            cookie: "x"
          ]
        )

      for line <- [
            ~s|mesh.port: got 70000, expected an integer from 0 to 65535|,
            ~s|mesh.ip: got "::", expected :loopback, :any, an address tuple|,
            ~s|mesh.advertise: got "10.0.0.5:0", expected an address such as "10.0.0.5" or|,
            ~s|mesh.services: got [BillingWeb.Endpoint], expected [only: [...]] or [except: [...]]|,
            ~s|mesh.prefer: got :local, expected {:local, 2} or :none|,
            ~s|mesh.lame_duck: got -1, expected milliseconds (0 or more)|,
            ~s|mesh.cookie|
          ] do
        assert message =~ line
      end

      assert mistakes(mesh: "yes") =~
               ~s|mesh: got "yes", expected true, false, or a keyword list such as [port: 4600]|

      for value <- [{"10.0.0.5:1", 2}, "", "a b", {"h", 0}] do
        assert mistakes(mesh: [advertise: value]) =~ "mesh.advertise"
      end
    end
  end
end
