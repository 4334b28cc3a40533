defmodule ExServiceMeshRouter.Console.NodesTest do
  # What people see of other nodes, everywhere. Not async: the configuration of the application is the VM's.
  use ExServiceMeshRouter.GatewayCase

  import ExUnit.CaptureIO

  alias ExServiceMeshRouter.{FakePeers, Gateway, Json, Native}
  alias ExServiceMeshRouter.Console.Index.Sampler
  alias ExServiceMeshRouter.Console.Top
  alias ExServiceMeshRouter.LiveDashboard.{Format, Reading}
  alias Mix.Tasks.Mesh.Routes

  defp page(gateway, accept) do
    text = "GET / HTTP/1.1\r\nHost: localhost\r\nAccept: #{accept}\r\nConnection: close\r\n\r\n"
    {200, body} = gateway |> url() |> RawClient.exchange(text) |> answer()
    body
  end

  defp json(gateway) do
    {:ok, report} = gateway |> page("application/json") |> Json.decode()
    report
  end

  defp gateway(services \\ %{}) do
    start_gateway(index: true, mesh: [ip: {127, 0, 0, 1}], services: services)
  end

  defp routes(gateway, arguments) do
    before = Application.get_all_env(:ex_service_mesh_router)
    options = [port: ExServiceMeshRouter.port(gateway), ip: {127, 0, 0, 1}, discover: false]
    Application.put_all_env(ex_service_mesh_router: options)

    on_exit(fn ->
      for {key, _} <- Application.get_all_env(:ex_service_mesh_router),
          do: Application.delete_env(:ex_service_mesh_router, key)

      Application.put_all_env(ex_service_mesh_router: before)
    end)

    capture_io(fn -> Routes.run(arguments) end)
  end

  # The data plane opens connections by itself.
  defp unreachable(gateway, host) do
    eventually([:unreachable], 5_000, fn ->
      get(gateway, host)
      for %{node: "f@h", state: state} <- peers(gateway, host), do: state
    end)
  end

  defp peers(gateway, host),
    do: Enum.find(ExServiceMeshRouter.services(gateway), &(host in &1.hosts)).peers

  test "each view has the nodes of a service, their states, and why requests avoid one" do
    gateway = gateway()

    FakePeers.put(gateway, [
      %{node: "b@h", services: [{"A", "a.example"}], state: :draining},
      %{node: "c@h", services: [{"A", "a.example"}], state: :last_resort},
      %{node: "f@h", services: [{"A", "a.example"}, {"F", "f.example"}]},
      %{node: "g@h", services: [{"A", "a.example"}], state: :joining}
    ])

    unreachable(gateway, "f.example")
    states = [{"b@h", :draining}, {"c@h", :last_resort}, {"f@h", :unreachable}]
    assert states == for(peer <- peers(gateway, "a.example"), do: {peer.node, peer.state})
    assert [%{address: "127.0.0.1:1", error: error}] = peers(gateway, "f.example")
    assert error =~ "refused"
    Sampler.sample(gateway)

    places = "b@h (draining), c@h (last resort), f@h (unreachable)"
    line = "4 other nodes (1 draining, 1 joining, 1 last resort, 1 unreachable)"

    lines = [
      "b@h is draining: it is stopping and gets no requests",
      "c@h is last resort: Erlang distribution is not connected to it; it gets",
      "f@h is unreachable: cannot connect to 127.0.0.1:1 (",
      "g@h is joining: it has not acknowledged this node yet"
    ]

    for text <- [page(gateway, "text/plain"), routes(gateway, [])] do
      assert text =~ places
      assert text =~ line
      for line <- lines, do: assert(text =~ line)
    end

    html = page(gateway, "text/html")
    assert html =~ ~s|<code>b@h</code> <span class="avoided">draining</span>|
    assert html =~ line
    assert html =~ "unreachable, cannot connect to 127.0.0.1:1 ("

    report = json(gateway)
    assert %{"state" => "on", "nodes" => [_, _, _, _]} = report["mesh"]
    assert %{"peers" => peers} = Enum.find(report["services"], &(&1["name"] == "A"))
    assert %{"node" => "f@h", "state" => "unreachable", "error" => ^error} = List.last(peers)

    top = report |> Top.render(:all, false) |> IO.iodata_to_binary()
    assert top =~ ~r/^mesh: .*#{Regex.escape(line)}$/m
    assert top =~ ~r/^A +up .* 0\/3$/m
    for line <- lines, do: assert(top =~ line)

    {:ok, listing} = gateway |> routes(["--json"]) |> Json.decode()
    assert listing["mesh"]["line"] == report["mesh"]["line"]
    assert Enum.find(listing["routes"], &(&1["service"] == "A"))["peers"] == peers

    reading = Reading.new(node(), gateway)
    assert Reading.mesh(reading) =~ line
    assert length(Reading.avoided(reading)) == 4
    assert [a, _f] = Reading.services(reading)
    assert Format.upstreams(a) == places
  end

  test "a page that is open learns of a node that stops" do
    gateway = gateway()
    peer = %{node: "b@h", services: [{"A", "a.example"}]}
    FakePeers.put(gateway, [peer])
    socket = gateway |> url() |> RawClient.connect()
    RawClient.send(socket, "GET /.mesh/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    read = until(socket, "event: hello", "")
    FakePeers.put(gateway, [Map.put(peer, :state, :draining)])
    read = until(socket, ~s|"mesh":|, read)
    assert until(socket, "it is stopping and gets no requests", read) =~ "1 draining"
  end

  defp until(socket, text, read) do
    if read =~ text do
      read
    else
      {:ok, bytes} = :gen_tcp.recv(socket, 0, 5_000)
      until(socket, text, read <> bytes)
    end
  end

  test "fifty nodes with twenty services stay readable and quick" do
    gateway = gateway(%{"static.example" => "http://127.0.0.1:1"})
    services = for n <- 10..29, do: {"S#{n}", "s#{n}.example"}

    FakePeers.put(
      gateway,
      for(n <- 10..59, do: %{node: "n#{n}@h", services: services, state: state(n)})
    )

    # Those that serve are greeted, and nothing listens there.
    eventually(25, 10_000, fn ->
      Enum.count(Native.peers(Gateway.ref(gateway)), &(&1.state == :unreachable))
    end)

    Sampler.sample(gateway)
    started = System.monotonic_time(:millisecond)
    text = page(gateway, "text/plain")
    assert System.monotonic_time(:millisecond) - started < 2_000
    [place] = Regex.run(~r/n10@h \(draining\).*and 42 more/, text)
    assert byte_size(place) < 300
    assert text =~ "50 other nodes (25 draining, 25 unreachable)"
    assert text =~ "and 30 more nodes"
    assert length(String.split(text, "\n")) < 60

    html = page(gateway, "text/html")
    assert html =~ "and 42 more"
    assert html =~ "and 30 more"
    assert length(String.split(html, "n10@h")) - 1 <= 21

    top = gateway |> json() |> Top.render({120, 40}, false) |> IO.iodata_to_binary()
    assert length(String.split(top, "\n", trim: true)) <= 40
    assert top =~ "0/50"
    assert length(Reading.avoided(Reading.new(node(), gateway))) == 21
    assert routes(gateway, []) =~ "and 42 more"
    # Programs get all of them.
    assert length(json(gateway)["mesh"]["nodes"]) == 50
  end

  defp state(n), do: if(n < 35, do: :draining, else: :serving)

  test "without a mesh every view says off, and there is no column and no section" do
    gateway = start_gateway(index: true, services: %{"a.example" => "http://127.0.0.1:1"})
    assert page(gateway, "text/plain") =~ "\nmesh: off\n"
    html = page(gateway, "text/html")
    assert html =~ ", mesh off</p>"
    refute html =~ ~s|id="mesh"|
    top = gateway |> json() |> Top.render(:all, false) |> IO.iodata_to_binary()
    refute top =~ "NODES"
    assert routes(gateway, []) =~ "\nmesh: off\n"
    assert gateway |> then(&Reading.new(node(), &1)) |> Reading.mesh() == "off"
  end

  test "a node that is not distributed says so" do
    assert page(gateway(), "text/plain") =~
             "mesh: waiting for distribution: start the node with a name"
  end
end
