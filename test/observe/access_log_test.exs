defmodule ExServiceMeshRouter.AccessLogTest do
  # Not beside others: it catches the node's log, and its signals.
  use ExServiceMeshRouter.GatewayCase

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.{AccessLog, ConfigError, Tree}
  alias ExServiceMeshRouter.Gateway.{Reporter, Signal}

  setup do
    directory = Path.join(System.tmp_dir!(), "mesh-log-#{System.unique_integer([:positive])}")
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    %{path: Path.join(directory, "access.log")}
  end

  defp start(log, options \\ []) do
    options =
      Keyword.put_new_lazy(options, :services, fn -> %{"a.local" => start_server("hello")} end)

    start_gateway([access_log: log] ++ options)
  end

  defp lines(path) do
    case File.read(path) do
      {:ok, text} -> text |> String.split("\n", trim: true) |> length()
      _ -> 0
    end
  end

  test "is written to Logger" do
    gateway = start(format: :common)

    log =
      capture_log(fn ->
        assert {200, _} = get(gateway, "a.local", "/seen?and=not")
        stop_supervised!(gateway)
      end)

    assert log =~ ~r|127.0.0.1 - - \[.*\] "GET /seen HTTP/1.1" 200 5|
    refute log =~ "and=not"
  end

  test "names the fault of an invalid response, as does the node's log", %{path: path} do
    bad = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi"
    services = %{"bad.local" => start_raw_server(bad)}
    gateway = start([format: :logfmt, to: path], services: services)

    log =
      capture_log(fn ->
        assert {502, _} = get(gateway, "bad.local")
        stop_supervised!(gateway)
      end)

    reason = "there are two different Content-Length fields"
    assert log =~ "gateway: a response was not valid HTTP, once: bad.local: #{reason}"
    assert File.read!(path) =~ ~s|error=bad_response side=upstream reason="#{reason}"|
  end

  test "is written to a file, which reopen/0 and SIGHUP reopen", %{path: path} do
    gateway = start(format: :logfmt, to: path)
    assert {200, _} = get(gateway, "a.local")
    eventually(1, fn -> lines(path) end)

    for {reopen, number} <- [
          {fn -> AccessLog.reopen(gateway) end, 1},
          {fn -> System.cmd("kill", ["-HUP", System.pid()]) end, 2}
        ] do
      File.rename!(path, "#{path}.#{number}")
      reopen.()
      eventually(true, fn -> File.exists?(path) end)
      assert {200, _} = get(gateway, "a.local")
      eventually({1, 1}, fn -> {lines(path), lines("#{path}.#{number}")} end)
    end
  end

  test "removes its signal handler, even after its process was killed", %{path: path} do
    before = :gen_event.which_handlers(:erl_signal_server)
    gateway = start(to: path)
    handlers = fn -> :gen_event.which_handlers(:erl_signal_server) -- before end
    assert [{Signal, {:sighup, ^gateway}}] = handlers.()

    capture_log(fn ->
      for _ <- 1..3 do
        %{Reporter => reporter} = Map.new(Tree.processes(gateway))
        Process.exit(reporter, :kill)

        eventually(true, fn ->
          Map.new(Tree.processes(gateway))[Reporter] not in [nil, reporter]
        end)
      end
    end)

    eventually(1, fn -> length(handlers.()) end)
    # Records are kept again from the moment when the reporter is back.
    eventually(true, fn -> match?({200, _}, get(gateway, "a.local")) and lines(path) > 0 end)
    stop_supervised!(gateway)
    assert handlers.() == []
  end

  test "has the last request when the gateway stops", %{path: path} do
    gateway = start(to: path)
    for _ <- 1..100, do: get(gateway, "a.local")
    stop_supervised!(gateway)
    assert lines(path) == 100
  end

  test "a file that cannot be written is a configuration error", %{path: path} do
    Process.flag(:trap_exit, true)
    options = [name: __MODULE__.Bad, port: 0, discover: false]

    assert {:error, %ConfigError{} = error} =
             ExServiceMeshRouter.Supervisor.start_link(
               options ++ [access_log: [to: Path.join(path, "below")]]
             )

    assert Exception.message(error) =~ "access_log.to: got"
  end
end
