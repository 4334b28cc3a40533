defmodule ExServiceMeshRouter.Console.TopTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  import ExUnit.CaptureIO

  alias ExServiceMeshRouter.Console.Index.Sampler
  alias ExServiceMeshRouter.Console.Top
  alias Mix.Tasks.Mesh.Top, as: Task

  @script System.find_executable("script")
  # Without a pty (no /dev/pts, as in some containers) it says so and fails.
  @no_terminal (cond do
                  @script == nil ->
                    "script is not installed (package bsdutils)"

                  match?(
                    {_, 0},
                    System.cmd(@script, ~w(-qec true /dev/null), stderr_to_stdout: true)
                  ) ->
                    nil

                  true ->
                    "this system gives no pseudo-terminal (is /dev/pts mounted?)"
                end)

  defp port(gateway), do: to_string(ExServiceMeshRouter.port(gateway))

  test "prints the report once without a terminal" do
    gateway = start_gateway(index: true, services: %{"up.localhost" => start_server("up")})
    for _ <- 1..5, do: get(gateway, "up.localhost")
    Sampler.sample(gateway)

    for arguments <- [["--once"], []] do
      text = capture_io(fn -> Task.run(["--port", port(gateway) | arguments]) end)
      assert text =~ ~r/^ex_service_mesh_router  port #{port(gateway)}  1 of 1 up$/m
      assert text =~ ~r/^up\.localhost +up .* 5$/m
      refute text =~ "\e"
    end
  end

  test "reports a missing gateway or index" do
    gateway = start_gateway(index: false, services: %{})
    port = port(gateway)

    message =
      "the server on port #{port} has no index; set `config :ex_service_mesh_router, index: true`"

    assert_raise Mix.Error, message, fn -> Task.run(["--port", port]) end

    free = free_port()

    assert_raise Mix.Error, "no gateway answers on port #{free}: connection refused", fn ->
      Task.run(["--port", to_string(free)])
    end
  end

  if @no_terminal == nil do
    # Runs it in a terminal of this size; returns all it wrote until it ended, and its exit code.
    # `path` comes before the programs of the system.
    defp in_terminal(gateway, columns, rows, keys, path \\ "/nowhere") do
      program = "Mix.Tasks.Mesh.Top.run([~s(--port), ~s(#{port(gateway)})])"
      paths = Enum.map_join(:code.get_path(), " ", &"-pa '#{&1}'")

      command =
        "stty cols #{columns} rows #{rows} && PATH=#{path}:$PATH exec elixir #{paths} -e '#{program}'"

      arguments = ["--quiet", "--return", "--command", command, "/dev/null"]
      options = [:binary, :exit_status, :stderr_to_stdout, args: arguments]
      terminal = Port.open({:spawn_executable, @script}, options)
      drawn(terminal, "", keys)
    end

    defp drawn(terminal, written, keys) do
      receive do
        {^terminal, {:data, bytes}} ->
          written = written <> bytes

          # The end of a picture.
          if keys && written =~ "\e[J" do
            Port.command(terminal, keys)
            drawn(terminal, written, nil)
          else
            drawn(terminal, written, keys)
          end

        {^terminal, {:exit_status, status}} ->
          {written, status}
      after
        30_000 -> flunk("it does not end; so far: #{inspect(written)}")
      end
    end

    test "uses its own screen, and restores the terminal on q and Ctrl-C" do
      services = %{"up.localhost" => start_server("up"), "down.localhost" => "unix:/nowhere/s"}
      gateway = start_gateway(index: true, services: services)

      # Keys that mean nothing are not shown either.
      for key <- ["zzq", <<3>>] do
        assert {written, 0} = in_terminal(gateway, 60, 8, key)
        refute written =~ "z"
        assert [before, picture, "" | _] = String.split(written, ["\e[?1049h", "\e[?1049l"])
        refute before =~ "SERVICE"
        assert picture =~ ~r/^\e\[\?25l.*\e\[\?25h$/s
        assert picture =~ "port #{port(gateway)}  2 of 2 up"

        lines = picture |> String.replace(~r/\e\[[0-9?]*[a-zA-Z]/, "") |> String.split("\r\n")
        assert length(lines) <= 8
        assert Enum.all?(lines, &(String.length(&1) <= 60))
        refute written =~ "BREAK"
      end
    end

    test "ends with q and Enter if it cannot read keys, and says so" do
      directory = Path.join(System.tmp_dir!(), "stty-#{System.unique_integer([:positive])}")
      File.mkdir_p!(directory)
      on_exit(fn -> File.rm_rf(directory) end)
      File.write!(Path.join(directory, "stty"), "#!/bin/sh\nexit 1\n")
      File.chmod!(Path.join(directory, "stty"), 0o755)

      gateway = start_gateway(index: true, services: %{"up.localhost" => start_server("up")})
      assert {written, 0} = in_terminal(gateway, 60, 8, "q\n", directory)
      assert [_before, picture, _after] = String.split(written, ["\e[?1049h", "\e[?1049l"])
      assert picture =~ "up.localhost"
      assert picture =~ "\e[KType q and Enter to quit: \e[J"
      lines = picture |> String.split("\e[J") |> hd() |> String.split("\r\n")
      assert length(lines) <= 8
    end
  else
    IO.puts("not opening mix mesh.top in a terminal: #{@no_terminal}")
  end

  describe "on a small terminal" do
    defp report(names) do
      live = %{"rate" => 1234.0, "errors" => 0.0, "p50" => 1.25, "p99" => 2_500.0}
      counts = %{"in_flight" => 12, "tunnels" => 3, "requests" => 1_234_567}

      services =
        for name <- names,
            do: %{"name" => name, "state" => "listening", "live" => Map.merge(live, counts)}

      %{
        "gateway" => %{"port" => 4000},
        "services" => services,
        "findings" => [],
        "errors" => [],
        "history" => [
          %{
            "time" => "2026-01-02T03:04:05Z",
            "line" => "route a.local -> #{hd(names)} at unix:/run/user/1000/exmesh-1-a/a.sock"
          }
        ]
      }
    end

    defp lines(report, size),
      do:
        report
        |> Top.render(size, false)
        |> IO.iodata_to_binary()
        |> String.split("\n", trim: true)

    test "names are shortened first, then columns are left out" do
      report = report(["ALongNameOfAnApplicationWeb.Endpoint"])
      assert [_, header, row, "ROUTES", route] = lines(report, {120, 24})
      assert header =~ ~r/^SERVICE +STATE +REQ\/S +5XX\/S +P50 +P99 +FLIGHT +TUNNELS +ALL$/
      assert row =~ ~r/^ALongNameOfAnApplicationWeb\.Endpoint  up +1234 .* 1234567$/
      assert route =~ "a.sock"

      assert [_, header, row, _, route] = lines(report, {80, 24})
      assert header =~ ~r/ TUNNELS +ALL$/
      assert row =~ ~r/^ALongNameOfAnAp?.*…  up +1234 .* 1234567$/
      assert String.ends_with?(route, "…")

      assert [_, header, row, _, _] = lines(report, {50, 24})
      assert header =~ ~r/ 5XX\/S +P50$/
      assert row =~ ~r/…  up +1234 +0\.0 +1\.3 ms$/

      for width <- [1, 5, 20, 40, 60, 80],
          line <- lines(report, {width, 24}),
          do: assert(String.length(line) <= width)
    end

    test "the columns keep their places" do
      [_, header | rows] = lines(report(["a", "bb", "ccc"]), {80, 24})
      rows = Enum.take(rows, 3)
      assert [_] = Enum.uniq(for row <- [header | rows], do: String.length(row))
    end

    test "the number of hidden services is shown" do
      lines = lines(report(for n <- 10..40, do: "s#{n}.localhost"), {80, 10})
      assert length(lines) <= 10
      assert List.last(lines) == "and 25 more"
    end
  end

  test "control characters are replaced" do
    report = put_in(report(["a\e[2J"]), ["history", Access.at(0), "line"], "route \e[2J\u009b31m")
    text = report |> Top.render({200, 50}, false) |> IO.iodata_to_binary()
    assert text =~ "route ?[2J?31"
    assert text =~ "a?[2J"
    refute text =~ "\e"
  end
end
