defmodule ExServiceMeshRouter.Console.Doctor.NodesTest do
  # What the doctor says of other nodes. Not async: what a release is, is the VM's.
  use ExServiceMeshRouter.GatewayCase

  import ExServiceMeshRouter.EndpointStandIn
  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.{Doctor, FakePeers}
  alias ExServiceMeshRouter.Doctor.{Finding, Nodes, Snapshot, Startup}
  alias ExServiceMeshRouter.Mesh.Checks

  @mesh_checks for {name, _} <- ExServiceMeshRouter.Config.DoctorChecks.all(),
                   String.starts_with?("#{name}", "mesh_"),
                   do: name

  defp said(node, more \\ []) do
    Map.merge(
      %{node: node, library: "0.1.0", endpoints: [{"A.Endpoint", "a_web"}], checks: %{}},
      Map.new(more)
    )
  end

  # What is found in this mesh.
  defp findings(said, more \\ []) do
    {status, more} = Keyword.pop(more, :status, %{})
    {options, more} = Keyword.pop(more, :options, mesh: true)
    {:ok, snapshot} = Snapshot.configured([discover: false] ++ options, more)
    status = Map.merge(%{state: :on, nodes: [], problem: nil}, status)
    snapshot = %{snapshot | running?: true, nodes: %Nodes{status: status, said: said}}
    for finding <- Doctor.examine(snapshot), finding.check in @mesh_checks, do: finding
  end

  defp apply_fix(finding, env) do
    Config.Reader.eval!("fix.exs", "import Config\n" <> finding.fix, env: env)
  end

  test "has no finding if nothing is wrong, and without a mesh" do
    same = %{"secret_key_base A.Endpoint" => "1", "pubsub_server A.Endpoint" => "A.PubSub"}
    assert findings([said("a@h", checks: same), said("b@h", checks: same)]) == []
    assert findings([said("a@h")]) == []
    assert start_gateway() |> Doctor.findings() |> Enum.filter(&(&1.check in @mesh_checks)) == []
  end

  describe "mesh_down" do
    test "finds a node without a name, until it has one" do
      gateway = start_gateway(mesh: true)

      assert [%{check: :mesh_down} = finding] =
               gateway |> Doctor.findings() |> Enum.filter(&(&1.check in @mesh_checks))

      assert finding.fix == "iex --sname a -S mix phx.server"
      status = %{state: :not_distributed}
      assert [finding] = findings([said("this node")], status: status, release?: true)
      assert %{file: "rel/env.sh.eex", fix: "export RELEASE_DISTRIBUTION=name\n" <> _} = finding
    end

    test "finds a mesh port in use, and sets another" do
      status = %{state: :not_listening, problem: "0.0.0.0:4600: the port is in use"}
      options = [mesh: [port: 4600]]
      assert [finding] = findings([said("a@h")], status: status, options: options)
      assert finding.problem =~ "at 0.0.0.0:4600: the port is in use"
      written = apply_fix(finding, :prod)[:ex_service_mesh_router]
      assert {:ok, %{mesh: %{port: 4601}}} = ExServiceMeshRouter.Config.new(written)
    end
  end

  test "mesh_unreachable names the nodes, their addresses and what to check" do
    node = &%{node: &1, state: &2, address: "10.0.0.2:4600", error: "timed out"}
    nodes = [node.("b@h", :unreachable), node.("c@h", :unreachable), node.("d@h", :serving)]
    assert [finding] = findings([said("a@h")], status: %{nodes: nodes})

    assert finding.problem ==
             "the gateway cannot connect to that of b@h at 10.0.0.2:4600, c@h at 10.0.0.2:4600 (timed out)"

    assert finding.why =~ "firewall"
    written = apply_fix(finding, :prod)[:ex_service_mesh_router]
    assert {:ok, %{mesh: %{port: 4600}}} = ExServiceMeshRouter.Config.new(written)
    many = for n <- 1..50, do: node.("n#{n}@h", :unreachable)
    assert [%{problem: problem}] = findings([said("a@h")], status: %{nodes: many})
    assert problem =~ "and 47 more"
  end

  describe "mesh_settings" do
    test "finds replicas with different secrets and PubSub servers" do
      checks = fn secret, pubsub ->
        [checks: %{"secret_key_base A.Endpoint" => secret, "pubsub_server A.Endpoint" => pubsub}]
      end

      said = [
        said("a@h", checks.("1", "A.PubSub")),
        said("b@h", checks.("2", "A.PubSub")),
        said("c@h", checks.("2", "B.PubSub"))
      ]

      assert [secret, pubsub] = findings(said)

      assert secret.problem ==
               "A.Endpoint has not the same `secret_key_base` on each node: one on a@h; another on b@h, c@h"

      System.put_env("SECRET_KEY_BASE", "same")
      on_exit(fn -> System.delete_env("SECRET_KEY_BASE") end)
      assert [a_web: [{A.Endpoint, [secret_key_base: "same"]}]] = apply_fix(secret, :prod)
      assert pubsub.problem =~ "A.PubSub on a@h, b@h; B.PubSub on c@h"
      assert [a_web: [{A.Endpoint, [pubsub_server: A.PubSub]}]] = apply_fix(pubsub, :prod)
    end

    test "digests are equal for equal secrets of one endpoint only, and tell nothing else" do
      web = unique("secret")
      other = unique("secret")
      secret = String.duplicate("very secret ", 6)
      for it <- [web, other], do: define(it.application, it.endpoint, secret_key_base: secret)
      [checks, others] = for it <- [web, other], do: Checks.own([it], false)
      key = "secret_key_base #{inspect(web.endpoint)}"
      assert checks == Checks.own([web], false)
      assert [{^key, digest}] = Map.to_list(checks)
      assert digest =~ ~r/\A[0-9a-f]{32}\z/
      refute digest in Map.values(others)
      refute inspect(checks) =~ "very secret"
      Application.put_env(web.application, web.endpoint, secret_key_base: secret <> "x")
      assert Checks.own([web], false)[key] != digest
      # A setting that is no secret, as an endpoint that lacks it.
      Application.put_env(web.application, web.endpoint, secret_key_base: nil, pubsub_server: P)
      assert Checks.own([web], false) == %{"pubsub_server #{inspect(web.endpoint)}" => "P"}
      assert %{"directory" => _, "machine" => _} = Checks.own([], true)
    end
  end

  test "mesh_host_conflict names who gets the requests here" do
    gateway = start_gateway(mesh: true, services: %{"own.example" => "http://127.0.0.1:1"})

    FakePeers.put(gateway, [
      %{node: "b@h", services: [{"A.Endpoint", "x.shop.example"}]},
      %{node: "c@h", services: [{"B.Endpoint", "x.shop.example"}, {"C.Endpoint", "own.example"}]}
    ])

    found = fn -> for it <- Doctor.findings(gateway), it.check == :mesh_host_conflict, do: it end
    assert [one, two] = found.()
    assert one.problem == "x.shop.example belongs to both A.Endpoint on b@h and B.Endpoint on c@h"
    assert one.why =~ "Clients of this node get A.Endpoint."
    assert apply_fix(one, :prod) == [app: [{B.Endpoint, [url: [host: "app.shop.example"]]}]]
    assert two.problem == "own.example belongs to both own.example and C.Endpoint on c@h"

    services = [{"B.Endpoint", "app.shop.example"}]

    FakePeers.put(gateway, [
      %{node: "b@h", services: [{"A.Endpoint", "x.shop.example"}]},
      %{node: "c@h", services: services}
    ])

    assert found.() == []
  end

  test "mesh_versions names the versions and the nodes" do
    said = [said("a@h"), said("b@h", library: "0.2.0"), said("c@h", library: "0.2.0")]
    assert [%{check: :mesh_versions, problem: problem}] = findings(said)
    assert problem =~ "0.1.0 on a@h; 0.2.0 on b@h, c@h"
  end

  describe "mesh_checkouts" do
    defp at(node, directory, more \\ []) do
      checks = %{"directory" => directory, "machine" => "laptop"}
      said(node, Keyword.merge([checks: checks], more))
    end

    test "finds two directories of one machine with the same endpoints, in development" do
      said = [at("a@h", "/one"), at("b@h", "/two")]
      assert [%{check: :mesh_checkouts} = finding] = findings(said, development?: true)
      assert finding.problem =~ "b@h runs in another directory of this machine (/two)"
      assert apply_fix(finding, :dev) == [ex_service_mesh_router: [mesh: false]]
      assert findings(said, development?: false) == []
    end

    test "allows roles in several directories, one directory, and other machines" do
      role = [endpoints: [{"B.Endpoint", "b_web"}]]
      assert findings([at("a@h", "/one"), at("b@h", "/two", role)], development?: true) == []
      assert findings([at("a@h", "/one"), at("b@h", "/one")], development?: true) == []
      other = [checks: %{"directory" => "/two", "machine" => "other"}]
      assert findings([at("a@h", "/one"), at("b@h", "/two", other)], development?: true) == []
      assert findings([at("a@h", "/one"), said("b@h")], development?: true) == []
    end
  end

  describe "with an endpoint" do
    setup do
      unique("doc")
    end

    defp serving(context, settings) do
      define(context.application, context.endpoint, settings)
      start_supervised!(context.endpoint)
      options = [mesh: true, discover: [only: [context.application]], dev_domain: "localhost"]
      gateway = start_gateway(options)
      settle(gateway)
      gateway
    end

    test "mesh_localhost finds one that other nodes do not get", context do
      gateway = serving(context, server: true, url: [host: "localhost"])
      found = fn -> for it <- Doctor.findings(gateway), it.check == :mesh_localhost, do: it end
      # Nothing is missing where there is no other node.
      assert found.() == []
      FakePeers.put(gateway, [%{node: "b@h"}])
      assert [finding] = found.()
      assert finding.problem =~ "other nodes do not get #{inspect(context.endpoint)}"
      [{application, settings}] = apply_fix(finding, :prod)
      before = Application.get_all_env(application)

      Application.put_all_env(
        Config.Reader.merge([{application, before}], [{application, settings}])
      )

      stop_supervised!(context.endpoint)
      start_supervised!(context.endpoint)
      eventually([], fn -> found.() end)
    end

    test "endpoint_down and server_missing leave out one that another node serves", context do
      host = context.name <> ".example"
      gateway = serving(context, server: false, url: [host: host])
      # A role: `server:` is not set at all.
      Application.put_env(context.application, context.endpoint, url: [host: host])

      found = fn ->
        snapshot = Snapshot.running(gateway, release?: true, development?: false)
        endpoints = for it <- snapshot.endpoints, do: %{it | started?: true}
        findings = Doctor.examine(%{snapshot | endpoints: endpoints})
        for %{check: check} <- findings, check in [:server_missing, :endpoint_down], do: check
      end

      assert found.() == [:server_missing]
      FakePeers.put(gateway, [%{node: "b@h", services: [{inspect(context.endpoint), host}]}])
      assert found.() == []
    end
  end

  test "findings about nodes that connect later are logged, the others not again" do
    gateway = start_gateway(mesh: true)

    log =
      capture_log(fn ->
        pid = start_supervised!({Startup, name: gateway, pause: 10, connected: :timer.hours(1)})
        eventually(1, 10_000, fn -> length(:sys.get_state(pid).logged) end)
        FakePeers.put(gateway, [%{node: "b@h", library: "9.9.9"}])
        send(pid, :look_again)
        # FakePeers has opened the port, so the first finding is gone.
        assert [%Finding{check: :mesh_versions}] = :sys.get_state(pid).logged
        send(pid, :look_again)
        :sys.get_state(pid)
      end)

    assert length(String.split(log, "this node is not distributed\n")) == 2
    assert length(String.split(log, "different versions of ex_service_mesh_router: ")) == 2
  end
end
