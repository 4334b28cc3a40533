defmodule ExServiceMeshRouter.Console.LiveDashboardTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  alias ExServiceMeshRouter.LiveDashboard.{Format, Reading}

  @params %{search: nil, sort_by: :name, sort_dir: :asc, limit: 50}

  # The second of two readings with `between` in between.
  defp reading(gateway, between) do
    first = Reading.new(node(), gateway)
    between.()
    later(first)
  end

  # Two readings have at least half a second between them.
  defp later(first) do
    case Reading.next(first) do
      ^first ->
        receive do
        after
          20 -> later(first)
        end

      second ->
        second
    end
  end

  defp rows(reading, params \\ %{}), do: Reading.rows(reading, Map.merge(@params, params))
  defp names({rows, _total}), do: Enum.map(rows, & &1.name)

  test "a first reading has counts and no rates" do
    gateway = start_gateway(index: false, services: %{"a.localhost" => start_server("hello")})
    assert {200, "hello"} = get(gateway, "a.localhost")
    eventually(1, fn -> ExServiceMeshRouter.stats(gateway).services["a.localhost"].requests end)

    reading = Reading.new(node(), gateway)
    assert {[row], 1} = rows(reading)
    assert %{name: "a.localhost", hosts: ["a.localhost"], state: :listening} = row
    assert %{requests: 1, sent: 5, received: 0, in_flight: 0, tunnels: 0} = row
    assert %{rate: nil, errors: nil, p50: nil, p99: nil} = row

    assert [{_time, "route a.localhost -> a.localhost at 127.0.0.1:" <> _}] =
             Reading.history(reading)

    assert Reading.addresses(reading) == ["127.0.0.1:#{ExServiceMeshRouter.port(gateway)}"]
  end

  test "a second reading has the rates since the first, for each service and in total" do
    services = %{
      "up.localhost" => start_server("up"),
      "failing.localhost" => start_server(&{{500, [], "no"}, &1}),
      "idle.localhost" => start_server("idle")
    }

    gateway = start_gateway(index: false, services: services)
    for _ <- 1..3, do: get(gateway, "up.localhost")

    reading =
      reading(gateway, fn ->
        for _ <- 1..8, do: assert({200, _} = get(gateway, "up.localhost"))
        for _ <- 1..4, do: assert({500, _} = get(gateway, "failing.localhost"))
      end)

    {rows, 3} = rows(reading)

    assert %{"up.localhost" => up, "failing.localhost" => failing, "idle.localhost" => idle} =
             Map.new(rows, &{&1.name, &1})

    # The same time for both, so that its length does not matter.
    assert_in_delta up.rate, failing.rate * 2, 0.3
    assert_in_delta failing.errors, failing.rate, 0.1
    assert %{errors: errors, requests: 11} = up
    assert errors == 0.0
    assert up.p50 > 0.0 and up.p99 >= up.p50
    assert %{rate: rate, p50: nil, p99: nil, requests: 0} = idle
    assert rate == 0.0

    assert %{requests: 15, in_flight: 0} = total = Reading.total(reading)
    assert_in_delta total.rate, up.rate + failing.rate, 0.2
  end

  test "rows are sorted, filtered and limited" do
    services = %{
      "busy.localhost" => start_server("busy"),
      "calm.localhost" => start_server("calm"),
      "gone.localhost" => "unix:/nowhere/Gone.sock"
    }

    gateway = start_gateway(index: false, services: services)
    reading = reading(gateway, fn -> for _ <- 1..2, do: get(gateway, "busy.localhost") end)

    assert names(rows(reading)) == ["busy.localhost", "calm.localhost", "gone.localhost"]
    assert [_, _, "busy.localhost"] = names(rows(reading, %{sort_by: :rate}))
    assert ["busy.localhost", _, _] = names(rows(reading, %{sort_by: :rate, sort_dir: :desc}))
    # Those without requests have no time, which is not more than any.
    assert ["busy.localhost", _, _] = names(rows(reading, %{sort_by: :p99, sort_dir: :desc}))
    assert names(rows(reading, %{search: "CALM"})) == ["calm.localhost"]
    assert names(rows(reading, %{search: "gone.sock"})) == ["gone.localhost"]
    assert {[], 0} = rows(reading, %{search: "nobody"})
    assert {[_], 3} = rows(reading, %{limit: 1})
  end

  test "errors are described in words, without clients that went away" do
    services = %{
      "gone.localhost" => "unix:/nowhere/gone.sock",
      "endless.localhost" => start_server(&{{200, [], {:stream, Stream.cycle(["more"])}}, &1})
    }

    gateway = start_gateway(index: false, services: services)
    for _ <- 1..2, do: assert({502, _} = get(gateway, "gone.localhost"))

    client = gateway |> url() |> RawClient.connect()
    :ok = :inet.setopts(client, linger: {true, 0})
    RawClient.send(client, request("endless.localhost"))
    RawClient.read(client, 1_000)
    :gen_tcp.close(client)
    gone = fn -> ExServiceMeshRouter.stats(gateway).services["endless.localhost"].errors end
    eventually(1, fn -> gone.().client_gone end)

    assert node() |> Reading.new(gateway) |> Reading.errors() ==
             ["gone.localhost: it refused the connection (2 times)"]
  end

  test "a restarted gateway has no rates at first" do
    options = [index: false, services: %{"a.localhost" => start_server("a")}]
    gateway = start_gateway(options)
    first = Reading.new(node(), gateway)
    assert {200, _} = get(gateway, "a.localhost")
    stop_supervised!(gateway)

    none = Reading.next(first)
    refute Reading.running?(none)
    assert rows(none) == {[], 0}

    ^gateway = start_gateway([name: gateway] ++ options)
    for _ <- 1..2, do: assert({200, _} = get(gateway, "a.localhost"))
    assert {[%{requests: 2, rate: nil}], 1} = none |> Reading.next() |> rows()
    assert {[%{requests: 2, rate: nil}], 1} = first |> Reading.next() |> rows()
  end

  test "a node without a gateway and a missing node have no running gateway" do
    refute Reading.running?(Reading.new(node(), __MODULE__.Nobody))
    refute Reading.running?(Reading.new(:"nobody@127.0.0.1", ExServiceMeshRouter))
  end

  test "values are formatted for people" do
    assert Enum.map([nil, 0.0, 9.94, 1234.5], &Format.number/1) == ["–", "0.0", "9.9", "1235"]

    assert Enum.map([0, 1_023, 1_024, 1_536, 5 * 1_024 ** 3], &Format.bytes/1) ==
             ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]
  end

  describe "the page" do
    @dashboard Code.ensure_loaded?(Phoenix.LiveDashboard.PageBuilder)

    if @dashboard do
      test "is served by an application with LiveDashboard" do
        board = Module.concat(__MODULE__, Endpoint)

        Application.put_env(:ex_service_mesh_router_board, board,
          adapter: Module.concat([Bandit, PhoenixAdapter]),
          http: [ip: {127, 0, 0, 1}, port: 0],
          server: true,
          pubsub_server: Module.concat(__MODULE__, PubSub),
          live_view: [signing_salt: "of the board"],
          secret_key_base: String.duplicate("board", 20)
        )

        Code.compile_file("test/support/live_dashboard.exs")

        for application <- [:bandit, :phoenix_live_view, :phoenix_live_dashboard],
            do: {:ok, _} = Application.ensure_all_started(application)

        start_supervised!(board)
        {:ok, {_ip, port}} = apply(board, :server_info, [:http])

        gateway =
          start_gateway(
            name: Module.concat(__MODULE__, Gateway),
            services: %{
              "board.localhost" => "http://127.0.0.1:#{port}",
              "gone.localhost" => "unix:/nowhere/gone.sock"
            }
          )

        assert {502, _} = get(gateway, "gone.localhost")
        assert {200, html} = get(gateway, "board.localhost", "/dashboard/mesh")
        assert html =~ "Services behind 127.0.0.1:#{ExServiceMeshRouter.port(gateway)}"
        assert html =~ "services out of 2"
        assert html =~ "unix:/nowhere/gone.sock"
        assert html =~ "gone.localhost: it refused the connection"
        assert html =~ "route board.localhost -&gt; board.localhost at 127.0.0.1:#{port}"

        # The page of a gateway that does not run is no link, and leads home.
        assert html =~ ~r/menu-item-disabled">\s*Service mesh/
        assert {302, _} = get(gateway, "board.localhost", "/dashboard/other")
      end
    else
      test "in an application without LiveDashboard is an error that says what is missing" do
        IO.puts("not opening the page in LiveDashboard: it is not installed")

        error =
          assert_raise CompileError, fn ->
            Code.compile_string(
              "defmodule SomeWeb.MeshPage, do: use(ExServiceMeshRouter.LiveDashboard)"
            )
          end

        assert error.description =~ "SomeWeb.MeshPage needs Phoenix LiveDashboard"
        assert error.description =~ ~s|{:phoenix_live_dashboard, "~> 0.8"}|
      end
    end
  end
end
