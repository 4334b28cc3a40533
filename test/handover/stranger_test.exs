defmodule ExServiceMeshRouter.Handover.StrangerTest do
  # What a process sends to the socket of the handover that is no gateway, or one of another version.
  use ExServiceMeshRouter.GatewayCase

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.{Handover, Json, ListenError}

  @host "app.local"

  setup do
    directory = Path.join(System.tmp_dir!(), "handover#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf(directory) end)
    path = Path.join(directory, "gateway.sock")
    %{directory: directory, path: path}
  end

  defp gateway(%{path: path}) do
    gateway = start_gateway(handover: path, services: %{@host => start_server("app")})
    eventually("serving", fn -> state(path) end)
    %{gateway: gateway}
  end

  defp state(path) do
    with {:ok, %{serving: %{"state" => state}}} <- Handover.status(path), do: state
  end

  defp connect(path) do
    {:ok, socket} = :gen_tcp.connect({:local, path}, 0, [:binary, active: false], 5_000)
    socket
  end

  defp frame(map) do
    json = map |> Json.encode() |> IO.iodata_to_binary()
    <<byte_size(json)::32, json::binary>>
  end

  defp answer_to(path, bytes) do
    socket = connect(path)
    :ok = :gen_tcp.send(socket, bytes)
    answer(:gen_tcp.recv(socket, 0, 8_000), socket)
  end

  defp answer({:ok, <<_::32, json::binary>>}, socket) do
    assert {:error, :closed} = :gen_tcp.recv(socket, 0, 8_000)
    {:ok, message} = Json.decode(json)
    message
  end

  describe "a running gateway" do
    setup :gateway

    test "answers what is no message in words, and serves on", context do
      %{path: path, gateway: gateway} = context
      take = %{type: "take", protocol: 1, port: 0, ips: ["127.0.0.1"]}

      cases = [
        {frame(%{type: "sing", protocol: 1}), ~r/unknown message "sing"/},
        {frame(%{type: "pause", protocol: 1}), ~r/unknown message "pause"/},
        {frame(%{take | type: [1]}), ~r/unknown message \[1\]/},
        {frame(%{protocol: 1}), ~r/not a JSON object with `type` and `protocol`/},
        {<<5::32, "hello">>, ~r/not a JSON object/},
        {<<2::32, "[]">>, ~r/not a JSON object/},
        {<<0::32>>, ~r/empty/},
        {<<0xFFFFFFFF::32, "x">>,
         ~r/a message of 4294967295 bytes is too long \(at most 65536\)/},
        {"GET / HTTP/1.1\r\n\r\n", ~r/a message of 1195725856 bytes is too long/},
        {frame(%{take | port: "4000"}), ~r/has no `port` and `ips`/},
        {frame(%{take | ips: %{}}), ~r/has no `port` and `ips`/},
        {frame(%{take | ips: [nil]}), ~r/it listens on 127.0.0.1, too/},
        {frame(%{take | protocol: 2}), ~r/speaks version 2 of the handover/},
        {frame(%{take | protocol: "x"}), ~r/speaks version "x" of the handover/},
        {frame(%{type: "take_over", protocol: 1}), ~r/there is nothing to take over/}
      ]

      capture_log(fn ->
        for {bytes, why} <- cases do
          assert %{"type" => "refused", "why" => text} = answer_to(path, bytes)
          assert text =~ why, inspect(bytes)
        end
      end)

      assert get(gateway, @host) == {200, "app"}
      assert state(path) == "serving"
    end

    test "hears no message that breaks off, and none that does not begin", context do
      %{path: path, gateway: gateway} = context

      for bytes <- ["", <<0, 0>>, <<0, 0, 0, 9, "abc">>] do
        socket = connect(path)
        :ok = :gen_tcp.send(socket, bytes)
        :ok = :gen_tcp.close(socket)
      end

      # More than it serves at the same time. They are closed after some seconds, and the next are heard.
      idle = for _ <- 1..17, do: connect(path)
      eventually("serving", 15_000, fn -> state(path) end)

      for socket <- idle do
        assert {:error, reason} = :gen_tcp.recv(socket, 0, 8_000)
        assert reason != :timeout
      end

      assert get(gateway, @host) == {200, "app"}
    end

    test "goes on when a process that has its sockets breaks the rules", context do
      %{path: path, gateway: gateway} = context
      take = frame(%{type: "take", protocol: 1, port: 0, ips: ["127.0.0.1"]})

      for next <- [frame(%{type: "serving", protocol: 1}), <<0xFFFFFFFF::32>>, :close] do
        log =
          capture_log(fn ->
            socket = connect(path)
            :ok = :gen_tcp.send(socket, take)
            assert {:ok, <<length::32, json::binary>>} = :gen_tcp.recv(socket, 0, 5_000)
            assert byte_size(json) == length
            assert {:ok, %{"type" => "sockets"}} = Json.decode(json)
            if next == :close, do: :gen_tcp.close(socket), else: :gen_tcp.send(socket, next)

            eventually(true, fn ->
              match?({:ok, %{serving: %{"handover" => nil}}}, Handover.status(path))
            end)
          end)

        assert log =~ "has not taken the port over, this one goes on"
        assert get(gateway, @host) == {200, "app"}
      end
    end

    test "gives its sockets again to the gateway that has them, and to no other", context do
      %{path: path, gateway: gateway} = context
      take = %{type: "take", protocol: 1, port: 0, ips: ["127.0.0.1"], gateway: "One"}

      capture_log(fn ->
        first = connect(path)
        :ok = :gen_tcp.send(first, frame(take))
        assert {:ok, _sockets} = :gen_tcp.recv(first, 0, 5_000)

        assert %{"type" => "refused", "why" => why} =
                 answer_to(path, frame(%{take | gateway: "Two"}))

        assert why =~ "process #{System.pid()} is taking it over already"

        # After a crash of its process, whose connection this one may not have missed yet.
        second = connect(path)
        :ok = :gen_tcp.send(second, frame(take))
        assert {:ok, <<_::32, json::binary>>} = :gen_tcp.recv(second, 0, 5_000)
        assert {:ok, %{"type" => "sockets"}} = Json.decode(json)
        assert {:error, :closed} = :gen_tcp.recv(first, 0, 5_000)
        assert {:ok, %{serving: %{"handover" => "handing over to" <> _}}} = Handover.status(path)
        assert get(gateway, @host) == {200, "app"}
        :gen_tcp.close(second)

        eventually(nil, fn ->
          with {:ok, it} <- Handover.status(path), do: it.serving["handover"]
        end)
      end)

      assert get(gateway, @host) == {200, "app"}
    end

    test "drains if another gateway serves at its path when its process starts again", context do
      %{path: path, gateway: gateway} = context
      eventually(true, fn -> File.exists?(path) end)
      status = frame(%{type: "status", protocol: 1, pid: 4_711, state: "serving"})
      other = Path.join(Path.dirname(path), "other")
      pretend(other, status)
      before = File.stat!(other).inode

      log =
        capture_log(fn ->
          offer = gateway |> Module.concat(Offer) |> Process.whereis()
          # Not before its process ends, which would see it with a tick.
          :ok = :sys.suspend(offer)
          File.rename!(other, path)
          Process.exit(offer, :kill)
          eventually(true, fn -> ExServiceMeshRouter.Gateway.drained?(gateway) end)
        end)

      assert log =~ "process 4711 has taken the port over; this one drains"
      assert File.stat!(path).inode == before
    end

    test "accepts again when a process ends, or says nothing, after `pause`", context do
      %{path: path, gateway: gateway} = context
      socket = connect(path)

      :ok =
        :gen_tcp.send(socket, frame(%{type: "take", protocol: 1, port: 0, ips: ["127.0.0.1"]}))

      {:ok, _sockets} = :gen_tcp.recv(socket, 0, 5_000)
      :ok = :gen_tcp.send(socket, frame(%{type: "pause", protocol: 1}))
      assert {:ok, <<_::32, json::binary>>} = :gen_tcp.recv(socket, 0, 5_000)
      assert {:ok, %{"type" => "paused", "total" => 0}} = Json.decode(json)
      # It waits in the queue.
      client = gateway |> url() |> RawClient.connect()
      RawClient.send(client, request(@host))
      assert {:error, :timeout} = :gen_tcp.recv(client, 0, 200)
      :gen_tcp.close(socket)

      assert client |> RawClient.read_to_end() |> ExServiceMeshRouter.GatewayCase.answer() ==
               {200, "app"}
    end
  end

  root? = File.stat!("/proc/self").uid == 0
  setpriv = System.find_executable("setpriv")

  reason =
    cond do
      not root? -> "it needs root to run a process as another user"
      setpriv == nil -> "there is no setpriv in the path"
      true -> nil
    end

  if reason, do: IO.puts("test/handover/stranger_test.exs: another user is not tested: #{reason}")

  describe "another user" do
    setup :gateway
    if reason, do: @describetag(skip: reason)

    test "is refused without an answer, with a line a minute", context do
      %{path: path, directory: directory, gateway: gateway} = context
      assert as_nobody(path) =~ "eacces"
      # Even where the directory lets it in.
      File.chmod!(directory, 0o755)
      File.chmod!(path, 0o666)

      log = capture_log(fn -> for _ <- 1..3, do: assert(as_nobody(path) =~ "closed") end)
      assert [_, _] = String.split(log, "of another user (65534) on #{path}")
      assert get(gateway, @host) == {200, "app"}
    end
  end

  defp as_nobody(path) do
    frame = frame(%{type: "status", protocol: 1})

    program = """
    R = case gen_tcp:connect({local, "#{path}"}, 0, [binary, {active, false}], 5000) of
      {ok, S} -> gen_tcp:send(S, base64:decode("#{Base.encode64(frame)}")), gen_tcp:recv(S, 0, 5000);
      E -> E
    end, io:format("~p", [R]), halt().
    """

    arguments = ~w(--reuid=65534 --regid=65534 --clear-groups erl -noshell -eval) ++ [program]

    {output, 0} =
      System.cmd("setpriv", arguments, env: [{"HOME", "/tmp"}], stderr_to_stdout: true)

    output
  end

  describe "a new gateway stops with a sentence" do
    # A process that listens in place of a gateway and answers with these bytes, or not at all.
    defp pretend(path, bytes) do
      File.mkdir_p!(Path.dirname(path))
      File.chmod!(Path.dirname(path), 0o700)
      {:ok, listener} = :gen_tcp.listen(0, [:binary, ip: {:local, path}, active: false])

      start_supervised!(
        {Task, fn -> pretend_again(listener, bytes) end},
        id: make_ref()
      )

      on_exit(fn -> :gen_tcp.close(listener) end)
    end

    defp pretend_again(listener, bytes) do
      {:ok, socket} = :gen_tcp.accept(listener)
      {:ok, _take} = :gen_tcp.recv(socket, 0)
      if bytes, do: :gen_tcp.send(socket, bytes)
      if bytes, do: :gen_tcp.shutdown(socket, :write)
      :gen_tcp.recv(socket, 0)
      pretend_again(listener, bytes)
    end

    defp sentence(path) do
      Process.flag(:trap_exit, true)
      name = Module.concat(__MODULE__, "Gateway#{System.unique_integer([:positive])}")
      options = [name: name, port: 0, ip: {127, 0, 0, 1}, discover: false, handover: path]
      assert {:error, %ListenError{} = error} = ExServiceMeshRouter.Supervisor.start_link(options)
      assert error.kind == :handover
      Exception.message(error)
    end

    for {what, message, why} <- [
          {"another version refuses", %{type: "refused", protocol: 2, why: "too old"}, "too old"},
          {"another version answers", %{type: "other", protocol: 2, version: "9.9"},
           "9.9\\\" speaks version 2 of the handover"},
          {"it gets no sockets", %{type: "sockets", protocol: 1}, "sent no listening sockets"},
          {"the answer is unknown", %{type: "sing", protocol: 1}, "unknown message (\"sing\")"}
        ] do
      test "if #{what}", %{path: path} do
        pretend(path, frame(unquote(Macro.escape(message))))
        assert sentence(path) =~ unquote(why |> String.replace("\\\"", "\""))
      end
    end

    test "if the answer is no message, or breaks off", %{path: path} do
      for {bytes, why} <- [
            {"HTTP/1.1 400 Bad Request\r\n\r\n", "is too long"},
            {<<3::32, "abc">>, "not a JSON object"},
            {<<9::32, "abc">>, "a message is incomplete"},
            {"", "closes connections without an answer"}
          ] do
        File.rm(path)
        pretend(path, bytes)
        assert sentence(path) =~ why
      end
    end

    test "if there is no answer", %{path: path} do
      pretend(path, nil)
      assert sentence(path) =~ "the process that listens on #{path} does not answer"
    end
  end
end
