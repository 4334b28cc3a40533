defmodule ExServiceMeshRouter.Console.DoctorTest do
  # Not async: whether Phoenix serves, and what a release is, are the VM's.
  use ExServiceMeshRouter.GatewayCase

  import ExServiceMeshRouter.EndpointStandIn
  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.Doctor
  alias ExServiceMeshRouter.Doctor.{Snapshot, Startup}
  alias ExServiceMeshRouter.Gateway.PortUse

  setup do
    Application.put_env(:phoenix, :serve_endpoints, true)
    on_exit(fn -> Application.delete_env(:phoenix, :serve_endpoints) end)
    unique("doc")
  end

  defp endpoint(context, settings),
    do: define(context.application, context.endpoint, settings)

  # Settings of an endpoint with which nothing is wrong.
  defp sound(context, more \\ []) do
    Config.Reader.merge([a: settings(context)], a: more)[:a]
  end

  defp settings(context) do
    [
      url: [host: context.name <> ".localhost", port: 4000],
      http: [ip: {127, 0, 0, 1}, port: 4001],
      server: true
    ]
  end

  defp options(context, more \\ []),
    do: [port: 4000, discover: [only: List.wrap(context.application)]] ++ more

  # What is found in a system that is configured so, and does not run.
  defp configured(options, more \\ []) do
    {:ok, snapshot} = Snapshot.configured(options, [development?: true] ++ more)
    Doctor.examine(snapshot)
  end

  # Puts the printed line where it says it belongs: into the configuration. Returns the gateway's.
  defp apply_fix(finding, options, more \\ []) do
    env = if Keyword.get(more, :development?, true), do: :dev, else: :prod
    written = Config.Reader.eval!("fix.exs", "import Config\n" <> finding.fix, env: env)
    {gateway, endpoints} = Keyword.pop(written, :ex_service_mesh_router, [])

    for {application, settings} <- endpoints do
      Application.put_all_env(
        Config.Reader.merge([{application, Application.get_all_env(application)}], [
          {application, settings}
        ])
      )
    end

    Config.Reader.merge([a: options], a: gateway)[:a]
  end

  defp assert_cured(options, more \\ []) do
    assert [finding] = configured(options, more)
    assert configured(apply_fix(finding, options, more), more) == []
    finding
  end

  test "has no finding if nothing is wrong", context do
    endpoint(context, sound(context))
    assert configured(options(context)) == []
    assert configured(options(context), release?: true, development?: false) == []
    assert configured(options(context), os: :darwin) == []
  end

  describe "in_vm" do
    test "finds an endpoint that does not exist", context do
      endpoint(context, sound(context))
      finding = assert_cured(options(context, in_vm: [context.endpoint, No.Such.Endpoint]))
      assert finding.check == :in_vm
      assert finding.why =~ "the gateway finds no such endpoint"
      assert configured(options(context, in_vm: :auto)) == []
    end

    test "finds an endpoint that needs its socket", context do
      endpoint(context, sound(context, http: [port: 0]))
      start_supervised!(context.endpoint)
      in_vm = [in_vm: [context.endpoint], doctor: [except: [:url_port]]]
      gateway = start_gateway(Keyword.merge(options(context, in_vm), port: 0))
      settle(gateway)
      assert [finding] = gateway |> Snapshot.running() |> Doctor.examine()
      assert finding.check == :in_vm
      assert finding.why =~ "its server is not Bandit"
      assert finding.fix =~ "config :ex_service_mesh_router, in_vm: false"
    end
  end

  describe "http2" do
    test "finds an endpoint that does not exist", context do
      endpoint(context, sound(context))
      finding = assert_cured(options(context, http2: [context.endpoint, No.Such.Endpoint]))
      assert finding.check == :http2
      assert finding.why =~ "The gateway finds no such endpoint"
    end

    test "finds an endpoint whose server is told not to speak it", context do
      endpoint(context, [])
      put = &Application.put_env(context.application, context.endpoint, sound(context, http: &1))

      for off <- [[http_2_options: [enabled: false]], [protocol_options: [protocols: [:http]]]] do
        put.(off)
        finding = assert_cured(options(context, http2: [context.endpoint]))
        assert finding.check == :http2

        assert finding.problem =~
                 "names #{inspect(context.endpoint)}, which does not speak HTTP/2"

        assert finding.why =~ inspect(off)
      end

      for on <- [[http_2_options: [enabled: true]], [protocol_options: [protocols: [:http2]]]] do
        put.(on)
        assert configured(options(context, http2: [context.endpoint])) == []
      end
    end
  end

  describe "url_port" do
    test "finds an endpoint with its own port in links", context do
      endpoint(context, sound(context, url: [port: 4001]))
      finding = assert_cured(options(context))
      assert finding.check == :url_port

      assert finding.problem =~
               "#{inspect(context.endpoint)} generates links that bypass the gateway"

      assert finding.why =~ "http://#{context.name}.localhost:4001"

      assert finding.fix ==
               "config #{inspect(context.application)}, #{inspect(context.endpoint)}, url: [port: 4000]"
    end

    test "takes the port of http:, or 80 in development, without a port in url:", context do
      endpoint(context, sound(context, url: [host: "doc.localhost", port: nil]))
      assert assert_cured(options(context)).check == :url_port
      endpoint = %{context | application: :"#{context.application}x"}
      url = [host: context.name <> ".localhost"]
      define(endpoint.application, Module.concat(context.endpoint, X), url: url, http: false)
      assert assert_cured(options(endpoint, private_listeners: :never)).why =~ ".localhost:80,"
    end

    test "has no finding for a private listener in development", context do
      url = [host: context.name <> ".localhost"]
      define(context.application, context.endpoint, url: url, http: false)
      assert configured(options(context)) == []
    end

    # What `phx.new.web` leaves in development; the server is at 4000 and links say 80.
    test "has no finding for an http: without a port", context do
      http = [ip: {127, 0, 0, 1}]
      url = [host: context.name <> ".localhost"]
      endpoint(context, url: url, http: http, server: true)
      assert configured(options(context)) == []
      assert configured(options(context), development?: false) == []

      assert [%{check: :endpoint_port} = port, %{check: :url_port} = links] =
               configured(options(context, private_listeners: :never))

      assert links.why =~ "They lead to http://#{context.name}.localhost:80,"
      Enum.each([port, links], &apply_fix(&1, []))
      assert configured(options(context, private_listeners: :never)) == []
    end

    test "has no finding for two endpoints with one port", context do
      for label <- ["", "b"] do
        application = :"#{label}#{context.application}"
        url = [host: label <> context.name <> ".localhost"]

        define(application, Module.concat([label <> "X", context.endpoint]),
          url: url,
          http: [port: 4001],
          server: true
        )
      end

      options = [port: 4000, discover: [only: [context.application, :"b#{context.application}"]]]
      assert configured(options) == []
      assert [%{check: :url_port}, _] = configured(options ++ [private_listeners: :never])
    end

    test "has no finding for a port of a proxy in front", context do
      endpoint(context, sound(context, url: [port: 8080]))
      assert configured(options(context)) == []
    end
  end

  describe "url_host" do
    # Two endpoints with the host that Phoenix generates.
    defp two(context, settings) do
      other = %{context | application: :"b#{context.application}", name: "b" <> context.name}
      other = %{other | endpoint: Module.concat(["B" <> inspect(context.endpoint)])}

      for {it, index} <- [{context, 1}, {other, 2}] do
        defaults = [url: [host: "localhost"], http: [port: 4000 + index], server: true]
        define(it.application, it.endpoint, Keyword.merge(defaults, settings))
      end

      %{context | application: [context.application, other.application]}
    end

    test "finds links to a shared host", context do
      both = two(context, [])

      for application <- both.application do
        [{endpoint, settings}] = Application.get_all_env(application)
        Application.put_env(application, endpoint, put_in(settings[:url][:port], 4000))
      end

      options = options(both, dev_domain: "localhost", doctor: [except: [:check_origin]])
      assert [other, one] = configured(options)
      assert {one.check, other.check} == {:url_host, :url_host}
      assert one.problem =~ "generates links to localhost, which several endpoints share"
      assert one.why =~ "The endpoint answers to #{context.name}.localhost."

      assert one.fix ==
               "config #{inspect(context.application)}, #{inspect(context.endpoint)}, url: [host: \"#{context.name}.localhost\"]"

      # With one of them elsewhere the other has it for itself.
      apply_fix(one, options)
      assert configured(options) == []
      apply_fix(other, options)
      assert configured(options) == []
    end

    test "is fixed together with the port", context do
      both = two(context, [])
      options = options(both, dev_domain: "localhost", doctor: [except: [:check_origin]])
      assert [other, %{check: :url_port} = one] = configured(options)
      assert one.fix =~ "url: [host: \"#{context.name}.localhost\", port: 4000]"
      apply_fix(one, options)
      apply_fix(other, options)
      assert configured(options) == []
    end

    test "has no finding if the gateway changes the host of links", context do
      both = two(context, url: [host: "localhost", port: 4000], http: false)
      options = options(both, dev_domain: "localhost")
      assert configured(options) == []
      options = options ++ [doctor: [except: [:check_origin]]]
      assert [%{check: :url_host}, _] = configured(options, development?: false)
    end
  end

  describe "check_origin" do
    test "finds development names that an endpoint refuses", context do
      endpoint(context, sound(context, url: [host: "doc.test"]))
      options = options(context, dev_domain: "localhost")
      finding = assert_cured(options)
      assert finding.check == :check_origin
      assert finding.problem =~ "refuses the sockets of pages at #{context.name}.localhost"
      assert finding.fix =~ ~s|check_origin: ["//doc.test", "//#{context.name}.localhost"]|
    end

    test "finds tenants if the application resolves tenants", context do
      endpoint(context, sound(context))
      assert configured(options(context)) == []
      uses_tenants(context.application)
      finding = assert_cured(options(context))
      assert finding.problem =~ "pages at tenant.#{context.name}.localhost"
    end

    test "adds to an existing list, and accepts settings that allow every origin", context do
      uses_tenants(context.application)
      origins = ["https://elsewhere.test"]
      endpoint(context, sound(context, check_origin: origins))

      assert assert_cured(options(context)).fix =~
               ~s|check_origin: ["https://elsewhere.test", "//|

      for value <- [false, :conn, {M, :f, []}, ["//*.#{context.name}.localhost"]] do
        Application.put_env(
          context.application,
          context.endpoint,
          sound(context, check_origin: value)
        )

        assert configured(options(context)) == []
      end
    end

    # An application whose only module names the plug, as `plug ...TenantPlug` compiles to.
    defp uses_tenants(application) do
      root = Path.join(System.tmp_dir!(), "#{application}")
      ebin = Path.join(root, "ebin")
      File.mkdir_p!(ebin)
      on_exit(fn -> File.rm_rf(root) end)
      module = Module.concat(["Uses#{application}"])

      {:module, ^module, beam, _} =
        Module.create(
          module,
          quote(do: def(call(conn), do: ExServiceMeshRouter.TenantPlug.call(conn, []))),
          Macro.Env.location(__ENV__)
        )

      File.write!(Path.join(ebin, "#{module}.beam"), beam)
      Code.prepend_path(ebin)
      on_exit(fn -> Code.delete_path(ebin) end)
    end
  end

  test "force_ssl without rewrite_on is a finding", context do
    endpoint(context, sound(context, force_ssl: [hsts: true, rewrite_on: [:x_forwarded_host]]))
    finding = assert_cured(options(context, trusted_proxies: ["127.0.0.1"]))
    assert finding.check == :force_ssl
    assert finding.file == "config/prod.exs, at its end"
    assert finding.fix =~ "force_ssl: [rewrite_on: [:x_forwarded_host, :x_forwarded_proto]]"
  end

  test "force_ssl on a private listener is not a finding", context do
    endpoint(context, sound(context, force_ssl: [hsts: true], http: false))
    assert configured(options(context, trusted_proxies: ["127.0.0.1"])) == []
  end

  test "a TLS proxy that is not trusted is a finding", context do
    endpoint(context, sound(context, url: [scheme: "https", port: 443]))
    finding = assert_cured(options(context))
    assert finding.check == :trusted_proxies

    assert finding.fix ==
             ~s|config :ex_service_mesh_router, trusted_proxies: ["127.0.0.1", "::1"]|

    assert [%{fix: fix}] = configured(options(context, ip: :any))
    assert fix =~ ~s|"10.0.0.0/8"|
  end

  test "names below .local are a finding on macOS only", context do
    endpoint(context, sound(context, url: [host: "doc.local"]))
    assert configured(options(context), os: :linux) == []
    finding = assert_cured(options(context), os: :darwin)
    assert finding.check == :local_names
    assert finding.fix =~ ~s|url: [host: "#{context.name}.localhost"]|
  end

  test "two endpoints with one host are a finding", context do
    endpoint(context, sound(context))
    other = %{context | application: :"b#{context.application}", name: "b" <> context.name}
    other = %{other | endpoint: Module.concat(["B" <> inspect(context.endpoint)])}
    settings = sound(context, http: [port: 4002])
    define(other.application, other.endpoint, settings)
    applications = %{context | application: [context.application, other.application]}
    finding = assert_cured(options(applications))
    assert finding.check == :host_conflict
    assert finding.problem =~ "#{context.name}.localhost is the host of both"
  end

  describe "server_missing" do
    test "finds a release whose gateway does not listen", context do
      Application.delete_env(:phoenix, :serve_endpoints)
      endpoint(context, sound(context))
      release = [release?: true, development?: false]
      finding = assert_cured(options(context), release)
      assert finding.check == :server_missing
      assert finding.file == "config/runtime.exs, at its end"
      assert finding.fix =~ "config :ex_service_mesh_router, server: true"
      # Neither tests nor migrations are to open the port for it.
      assert Config.Reader.eval!("fix.exs", "import Config\n" <> finding.fix, env: :test) == []
      log = capture_log(fn -> Startup.unserved(options(context), release) end)
      assert log =~ "config :ex_service_mesh_router, server: true"
      assert capture_log(fn -> Startup.unserved(options(context), release?: false) end) == ""
    end

    test "finds a release with an endpoint that does not listen, except with server: false",
         context do
      Application.delete_env(:phoenix, :serve_endpoints)
      endpoint(context, Keyword.delete(sound(context), :server))
      options = options(context, server: true)
      assert assert_cured(options, release?: true, development?: false).fix =~ "server: true"
      Application.put_env(context.application, context.endpoint, sound(context, server: false))
      assert configured(options, release?: true) == []
    end

    test "has no finding for a release that is only evaluated", context do
      Application.delete_env(:phoenix, :serve_endpoints)
      endpoint(context, Keyword.delete(sound(context), :server))
      assert configured(options(context), release?: true) == []
    end
  end

  describe "endpoint_port and port_taken" do
    test "find an endpoint on the gateway's port", context do
      endpoint(context, sound(context, http: [port: 4000]))
      assert configured(options(context)) == []
      finding = assert_cured(options(context, private_listeners: :never))
      assert finding.check == :endpoint_port
      assert finding.fix =~ "http: [port: 4001]"
    end

    test "find the process that has the gateway's port", context do
      {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
      {:ok, port} = :inet.port(socket)
      {:ok, config} = ExServiceMeshRouter.Config.new(port: port)
      refute PortUse.free?(config, port)
      assert %{pid: pid, command: "beam" <> _} = holder = PortUse.holder(port)
      assert pid == String.to_integer(System.pid())

      endpoint(context, sound(context, url: [port: 4000]))
      options = Keyword.put(options(context), :port, port)
      assert [finding] = configured(options, holder: holder, development?: false)
      assert finding.check == :port_taken
      assert finding.problem =~ "port #{port} is in use by process #{pid} (beam"

      fixed = apply_fix(finding, options, development?: false)
      {:ok, config} = ExServiceMeshRouter.Config.new(fixed)
      assert PortUse.free?(config, fixed[:port])
      :gen_tcp.close(socket)
      assert PortUse.free?(config, port)
      assert PortUse.holder(port) == %{pid: nil, command: nil}
    end
  end

  describe "public_listener" do
    @production [development?: false]

    # As Phoenix generates applications for production.
    defp public(context, http) do
      url = [host: context.name <> ".test", port: 443, scheme: "https"]
      settings = [url: url, http: http, server: true]

      if Code.ensure_loaded?(context.endpoint),
        do: Application.put_env(context.application, context.endpoint, settings),
        else: endpoint(context, settings)

      options(context, ip: :any, trusted_proxies: ["127.0.0.1"])
    end

    test "finds an endpoint that other machines can reach", context do
      every = "listens on every address of this machine, port 4001"

      for {http, where} <- [
            {[ip: {0, 0, 0, 0, 0, 0, 0, 0}, port: 4001], every},
            {[ip: {0, 0, 0, 0}, port: "4001"], every},
            {[ip: :any, port: 4001], every},
            {[port: 4001], every},
            {[:inet6, port: 4001], every},
            {[port: 4001, net: :inet6], every},
            {[ip: {10, 0, 0, 5}, port: 4001], "listens on 10.0.0.5, port 4001"},
            {[port: 0], "listens on every address of this machine"}
          ] do
        finding = assert_cured(public(context, http), @production)
        assert finding.check == :public_listener
        assert finding.problem == "#{inspect(context.endpoint)} #{where}"
        assert finding.file == "config/runtime.exs, at its end"
        assert finding.fix =~ "http: [ip: {127, 0, 0, 1}"
        http = Application.get_env(context.application, context.endpoint)[:http]
        assert http[:port] in [4001, "4001", 0]
      end
    end

    test "takes 4000 for an application without a port", context do
      options = context |> public(ip: :any) |> Keyword.put(:port, 4080)
      assert assert_cured(options, @production).problem =~ "of this machine, port 4000"
    end

    test "has no finding for the gateway's port, except with :never", context do
      options = public(context, ip: :any)
      assert configured(options, @production) == []

      assert [%{check: :endpoint_port} = port, %{check: :public_listener} = public] =
               configured([private_listeners: :never] ++ options, @production)

      # Another address than the gateway's is no reason to take its port.
      options = context |> public(ip: {10, 0, 0, 5}) |> Keyword.put(:ip, {127, 0, 0, 1})
      assert [%{check: :public_listener}] = configured(options, @production)
      options = public(context, ip: :any) ++ [private_listeners: :never]
      apply_fix(public, options, @production)
      apply_fix(port, options, @production)
      assert configured(options, @production) == []
    end

    test "has no finding for loopback, a Unix socket, or development", context do
      for http <- [
            [ip: {127, 0, 0, 1}, port: 4001],
            [ip: {127, 8, 0, 1}, port: 4001],
            [ip: {0, 0, 0, 0, 0, 0, 0, 1}, port: 4001],
            [ip: {0, 0, 0, 0, 0, 0xFFFF, 0x7F00, 1}, port: 4001],
            [ip: :loopback, port: 4001],
            [ip: {:local, "/run/a.sock"}, port: 0],
            false
          ],
          do: assert(configured(public(context, http), @production) == [])

      options = public(context, ip: {0, 0, 0, 0}, port: 4001)
      assert configured(options) == []
      assert [_] = configured(options, @production)
      settings = Application.get_env(context.application, context.endpoint)
      settings = Keyword.put(settings, :server, false)
      Application.put_env(context.application, context.endpoint, settings)
      assert configured(options, @production) == []
    end
  end

  describe "in a running system" do
    test "an endpoint that listens for other machines is found", context do
      url = [host: context.name <> ".test"]
      endpoint(context, url: url, http: [ip: {0, 0, 0, 0}, port: 0], server: true)
      gateway = start_gateway(discover: [only: [context.application]])
      start_supervised!(context.endpoint)
      eventually(:listening, fn -> state(gateway) end)
      assert [%{check: :public_listener} = finding] = running(gateway, %{started: []})

      apply_fix(finding, [], development?: false)
      stop_supervised!(context.endpoint)
      start_supervised!(context.endpoint)
      eventually(:listening, fn -> state(gateway) end)
      assert running(gateway, %{started: []}) == []
    end

    test "an endpoint whose port the gateway takes is not found", context do
      port = free_port()
      url = [host: context.name <> ".test"]
      endpoint(context, url: url, http: [ip: {0, 0, 0, 0}, port: port], server: true)
      start_supervised!(context.endpoint)
      gateway = start_gateway(port: port, discover: [only: [context.application]])
      eventually(:listening, fn -> state(gateway) end)
      assert running(gateway, %{started: []}) == []
    end

    test "an endpoint that is down is found until it runs", context do
      endpoint(context, sound(context))
      gateway = start_gateway(discover: [only: [context.application]])
      started = %{started: [context.application]}
      eventually(1, fn -> gateway |> ExServiceMeshRouter.services() |> length() end)
      assert [finding] = running(gateway, started)
      assert finding.check == :endpoint_down
      assert finding.problem == "#{inspect(context.endpoint)} is not running"
      assert finding.fix == inspect(context.endpoint)

      # What the fix says: one more child.
      {child, _} = Code.eval_string(finding.fix)
      start_supervised!(child)
      eventually([], fn -> running(gateway, started) end)
    end

    test "an endpoint that runs without a listener is found", context do
      # Told to serve only after its start: as an endpoint whose only listener speaks TLS.
      endpoint(context, sound(context) |> Keyword.delete(:http) |> Keyword.put(:server, false))
      options = [discover: [only: [context.application]], private_listeners: :never]
      gateway = start_gateway(options)
      start_supervised!(context.endpoint)
      eventually(:not_listening, fn -> state(gateway) end)
      settings = Application.get_env(context.application, context.endpoint)
      serving = Keyword.put(settings, :server, true)
      Application.put_env(context.application, context.endpoint, serving)

      started = %{started: [context.application]}
      assert [%{check: :endpoint_down} = finding] = running(gateway, started)
      assert finding.problem =~ "runs, but has no listener"
      assert finding.fix =~ "http: [ip: {127, 0, 0, 1}, port: 4001]"

      apply_fix(finding, [], development?: false)
      stop_supervised!(context.endpoint)
      start_supervised!(context.endpoint)
      eventually(:listening, fn -> state(gateway) end)
      assert running(gateway, started) == []
    end

    defp state(gateway),
      do:
        gateway |> ExServiceMeshRouter.services() |> List.first(%{state: nil}) |> Map.get(:state)

    defp running(gateway, more) do
      snapshot = Snapshot.running(gateway, development?: false)

      endpoints =
        for it <- snapshot.endpoints, do: %{it | started?: it.application in more.started}

      Doctor.examine(%{snapshot | endpoints: endpoints})
      |> Enum.reject(&(&1.check == :url_port))
    end

    test "findings are logged once, after all applications have started", context do
      endpoint(context, sound(context, force_ssl: [hsts: true]))
      gateway = start_gateway(discover: [only: [context.application]])

      handler = :"log of #{inspect(context.endpoint)}"
      :ok = :logger.add_handler(handler, __MODULE__, %{config: self()})
      on_exit(fn -> :logger.remove_handler(handler) end)
      start_supervised!({Startup, name: gateway, pause: 10})

      line = "mesh doctor: #{inspect(context.endpoint)} forces TLS"
      log = logged(line, 10_000)
      assert logged(line, 200) == nil

      assert log =~
               "    config #{inspect(context.application)}, #{inspect(context.endpoint)}, force_ssl:"
    end
  end

  @doc "A handler of `:logger` that tells a test."
  def log(%{msg: {:string, text}}, %{config: test}),
    do: send(test, {:logged, IO.chardata_to_string(text)})

  def log(_other, _handler), do: :ok

  # The next message with `line` in it.
  defp logged(line, within) do
    receive do
      {:logged, text} -> if text =~ line, do: text, else: logged(line, within)
    after
      within -> nil
    end
  end

  test "checks can be left out", context do
    endpoint(context, sound(context, url: [port: 4001]))
    assert [_] = configured(options(context))
    assert configured(options(context, doctor: [except: [:url_port]])) == []
    assert configured(options(context, doctor: false)) == []

    assert {:error, error} = ExServiceMeshRouter.Config.new(doctor: [except: [:url]])

    assert Exception.message(error) =~
             "doctor.except: got :url, expected :root_dependency, "
  end
end
