defmodule ExServiceMeshRouter.Gateway.CallsTest do
  # Not async: it takes workers.
  use ExServiceMeshRouter.GatewayCase

  alias ExServiceMeshRouter.{Config, Native, RawClient}

  @patience 5_000

  # A data plane whose `a.test` is answered by processes of this test. The endpoint's socket leads to a server that says
  # "by socket".
  setup do
    :ok = Native.load()
    {:ok, config} = Config.new(port: 0, ip: {127, 0, 0, 1})
    {:ok, gateway} = Native.open(%{config.native | workers: 1}, self())
    runner = start_runner(gateway)
    on_exit(fn -> Native.stop(gateway, 0) end)
    [{_ip, port}] = Native.addrs(gateway)
    {:ok, gateway: gateway, runner: runner, url: "http://127.0.0.1:#{port}"}
  end

  defp start_runner(gateway) do
    runner = spawn(fn -> Native.run(gateway, 0) end)

    eventually({:current_function, {Native, :run, 2}}, fn ->
      Process.info(runner, :current_function)
    end)

    runner
  end

  defp route(gateway, dispatchers) do
    %URI{port: port} = URI.parse(start_server("by socket"))
    socket = %{kind: :tcp, ip: "127.0.0.1", port: port}
    put_routes(gateway, Map.put(socket, :dispatchers, dispatchers))
  end

  defp put_routes(gateway, upstream) do
    Native.put_routes(gateway, [%{name: "A", hosts: ["a.test"], upstreams: [upstream]}], nil)
  end

  # A dispatcher that starts a process for each call.
  defp dispatcher(serve) do
    spawn_link(fn -> dispatch(serve) end)
  end

  defp dispatch(serve) do
    receive do
      {:mesh_calls, calls} ->
        for call <- calls, do: spawn(fn -> serve.(call) end)
        dispatch(serve)
    end
  end

  defp http(line, fields \\ "", body \\ ""),
    do: "#{line} HTTP/1.1\r\nHost: a.test\r\n#{fields}\r\n#{body}"

  defp ask(url, request) do
    socket = RawClient.connect(url)
    RawClient.send(socket, request)
    socket
  end

  defp answer(url, request) do
    url
    |> ask(String.replace(request, "Host: a.test\r\n", "Host: a.test\r\nConnection: close\r\n"))
    |> RawClient.read_to_end()
  end

  defp respond(call, text, fields \\ []) do
    fields = [{"content-length", Integer.to_string(byte_size(text))} | fields]

    with :ok <- Native.call_head(call, 200, fields, :length),
         :ok <- Native.call_data(call, text, 0),
         do: Native.call_finish(call)
  end

  defp read_all(call, read \\ []) do
    case Native.call_read(call, 65_536) do
      {:ok, part} ->
        read_all(call, [read, part])

      :pending ->
        receive do
          {^call, :readable} -> read_all(call, read)
        after
          @patience -> flunk("no word that there is more")
        end

      ended ->
        {ended, IO.iodata_to_binary(read)}
    end
  end

  defp write_all(call, data, offset \\ 0) do
    case Native.call_data(call, data, offset) do
      {:more, offset} ->
        receive do
          {^call, :room} -> write_all(call, data, offset)
        after
          @patience -> flunk("no word of room")
        end

      ended ->
        ended
    end
  end

  # The test's process is the dispatcher, and serves.
  defp take do
    assert_receive {:mesh_calls, [call]}, @patience
    assert {^call, _, _, _, _, _, :ignore} = taken = Native.call_take(call)
    {call, Tuple.delete_at(taken, 6)}
  end

  test "a process answers a request without a socket", %{gateway: gateway, url: url} do
    :ok = route(gateway, [self()])
    socket = ask(url, http("GET /path?query", "X-One: a\r\nx-TWO:  b \r\n"))
    {call, {_, "GET", "/path?query", headers, :"HTTP/1.1", :none}} = take()
    assert is_reference(call)
    assert List.keyfind(headers, "x-one", 0) == {"x-one", "a"}
    assert List.keyfind(headers, "x-two", 0) == {"x-two", "b"}
    assert {_, "127.0.0.1"} = List.keyfind(headers, "x-forwarded-for", 0)
    assert Native.call_alive(call)
    assert Native.call_take(call) == :closed
    assert Native.call_read(call, 10) == :end
    assert respond(call, "hello") == :ok
    assert RawClient.read_until(socket, "hello") =~ "HTTP/1.1 200 OK\r\n"
    eventually(false, fn -> Native.call_alive(call) end)
    assert Native.call_finish(call) == :ok
  end

  test "bodies go both ways, whole", %{gateway: gateway, url: url} do
    echo = fn call ->
      {call, "POST", _, _, _, body, _} = Native.call_take(call)
      {:end, read} = read_all(call)
      :ok = Native.call_head(call, 200, [{"x-body", inspect(body)}], :chunked)
      :ok = write_all(call, read <> "!?")
      :ok = Native.call_finish(call)
    end

    :ok = route(gateway, [dispatcher(echo), dispatcher(echo)])
    data = :crypto.strong_rand_bytes(3_000_000)
    size = Integer.to_string(byte_size(data), 16)

    for {fields, body} <- [
          {"Content-Length: #{byte_size(data)}\r\n", data},
          {"Transfer-Encoding: chunked\r\n", "#{size}\r\n#{data}\r\n0\r\n\r\n"}
        ] do
      socket = RawClient.connect(url)
      sending = Task.async(fn -> RawClient.send(socket, http("POST /", fields, body)) end)
      # Chunks of an unknown size are around the data, so it is compared without them.
      response = RawClient.read_until(socket, "\r\n0\r\n\r\n")
      Task.await(sending)

      assert response =~
               "x-body: #{if fields =~ "Length", do: "{:length, 3000000}", else: ":chunked"}"

      [_head, chunked] = String.split(response, "\r\n\r\n", parts: 2)
      assert dechunk(chunked) == data <> "!?"
    end
  end

  defp dechunk(bytes, data \\ []) do
    [size, rest] = :binary.split(bytes, "\r\n")

    case String.to_integer(size, 16) do
      0 ->
        IO.iodata_to_binary(data)

      size ->
        <<chunk::binary-size(size), "\r\n", rest::binary>> = rest
        dechunk(rest, [data, chunk])
    end
  end

  test "a process waits for a body and for room", %{gateway: gateway, url: url} do
    :ok = route(gateway, [self()])
    socket = ask(url, http("POST /", "Content-Length: 5\r\n", "he"))
    {call, _} = take()
    assert Native.call_read(call, 100) == {:ok, "he"}
    assert Native.call_read(call, 100) == :pending
    assert Native.call_read(call, 100) == :pending
    RawClient.send(socket, "llo")
    assert_receive {^call, :readable}, @patience
    refute_received {^call, :readable}
    assert Native.call_read(call, 100) == {:ok, "llo"}
    assert Native.call_read(call, 100) == :end

    large = :binary.copy("x", 40_000_000)
    fields = [{"content-length", "40000000"}]
    assert Native.call_head(call, 200, fields, :length) == :ok
    writing = Task.async(fn -> write_all(call, large) end)
    # A second process that waits for room hears of it, too.
    assert write_all(call, "") == :ok
    received = read_bytes(socket, 40_000_000)
    assert received >= 40_000_000
    assert Task.await(writing) == :ok
    assert Native.call_finish(call) == :ok
  end

  defp read_bytes(socket, wanted, read \\ 0) do
    if read >= wanted do
      read
    else
      {:ok, bytes} = :gen_tcp.recv(socket, 0, @patience)
      read_bytes(socket, wanted, read + byte_size(bytes))
    end
  end

  test "a process hears that its client has gone", %{gateway: gateway, url: url} do
    :ok = route(gateway, [self()])
    socket = ask(url, http("POST /", "Content-Length: 5\r\n", "he"))
    {call, _} = take()
    assert Native.call_watch(call) == :ok
    assert {:ok, "he"} = Native.call_read(call, 100)
    assert Native.call_read(call, 100) == :pending
    :inet.setopts(socket, linger: {true, 0})
    :gen_tcp.close(socket)
    assert_receive {^call, :closed}, @patience
    assert_receive {^call, :readable}, @patience
    refute Native.call_alive(call)

    for closed <- [
          Native.call_read(call, 100),
          Native.call_head(call, 200, [], :chunked),
          Native.call_data(call, "data", 0),
          Native.call_finish(call)
        ],
        do: assert(closed == :closed)

    assert Native.call_flush(call) == :ok
    assert Native.call_fail(call) == :ok
    # Too late to be told by the data plane.
    socket = ask(url, http("GET /"))
    assert_receive {:mesh_calls, [second]}, @patience
    assert {_, _, _, _, _, _, _} = Native.call_take(second)
    :inet.setopts(socket, linger: {true, 0})
    :gen_tcp.close(socket)
    eventually(false, fn -> Native.call_alive(second) end)
    assert Native.call_watch(second) == :ok
    assert_received {^second, :closed}
  end

  test "a killed process is answered for at once", %{gateway: gateway, url: url} do
    test = self()

    # Its reference lives on, here and in the dispatcher.
    serve = fn call ->
      {call, _, target, _, _, _, _} = Native.call_take(call)

      if target == "/begun" do
        :ok = Native.call_head(call, 200, [], :chunked)
        :ok = Native.call_data(call, "begun", 0)
      end

      send(test, {:serving, self(), call})
      Process.sleep(:infinity)
    end

    :ok = route(gateway, [dispatcher(serve)])
    socket = ask(url, http("GET /"))
    assert_receive {:serving, pid, call}, @patience
    Process.exit(pid, :kill)

    assert {:ok, "HTTP/1.1 500 Internal Server Error\r\n" <> _} =
             :gen_tcp.recv(socket, 0, @patience)

    assert Native.call_data(call, "late", 0) == :closed

    socket = ask(url, http("GET /begun"))
    assert_receive {:serving, pid, _call}, @patience
    RawClient.read_until(socket, "begun\r\n")
    Process.exit(pid, :kill)
    assert {:error, reason} = :gen_tcp.recv(socket, 0, @patience)
    assert reason in [:closed, :econnreset]
  end

  test "a call that is forgotten is answered", %{gateway: gateway, url: url} do
    forget = fn call -> {_, _, _, _, _, _, _} = Native.call_take(call) end
    :ok = route(gateway, [dispatcher(forget)])
    assert answer(url, http("GET /")) =~ "HTTP/1.1 500 "
  end

  test "requests of dispatchers that have ended go to the socket", %{gateway: gateway, url: url} do
    dispatcher = spawn(fn -> Process.sleep(:infinity) end)
    :ok = route(gateway, [dispatcher])
    socket = ask(url, http("POST /", "Content-Length: 2\r\n", "hi"))
    # It waits in the mailbox.
    eventually({:message_queue_len, 1}, fn -> Process.info(dispatcher, :message_queue_len) end)
    Process.exit(dispatcher, :kill)
    assert RawClient.read_until(socket, "by socket") =~ "HTTP/1.1 200 "
    # It was sent to none.
    assert answer(url, http("GET /")) =~ "by socket"

    # One that lives is enough.
    other = dispatcher(fn call -> Native.call_take(call) && respond(call, "called") end)
    :ok = route(gateway, [dispatcher, other])
    for _ <- 1..10, do: assert(answer(url, http("GET /")) =~ "called")
  end

  test "a runner that was killed goes on", %{gateway: gateway, url: url, runner: runner} do
    :ok = route(gateway, [self()])
    first = ask(url, http("POST /", "Content-Length: 5\r\n", "he"))
    {call, _} = take()
    assert Native.call_read(call, 100) == {:ok, "he"}
    assert Native.call_read(call, 100) == :pending
    Process.exit(runner, :kill)
    eventually(false, fn -> Process.alive?(runner) end)

    # A message that was ready before, and calls.
    RawClient.send(first, "llo")
    assert_receive {^call, :readable}, @patience
    assert Native.call_read(call, 100) == {:ok, "llo"}
    assert respond(call, "first") == :ok
    assert RawClient.read_until(first, "first") =~ "200 OK"

    for i <- 1..20 do
      socket = ask(url, http("GET /#{i}"))
      {call, _} = take()
      assert respond(call, "after #{i}") == :ok
      assert RawClient.read_until(socket, "after #{i}") =~ "200 OK"
    end

    dispatcher = spawn(fn -> Process.sleep(:infinity) end)
    Process.exit(dispatcher, :kill)
    :ok = route(gateway, [dispatcher])
    assert answer(url, http("GET /")) =~ "by socket"
  end

  test "what a process does wrong is refused with a reason", %{gateway: gateway, url: url} do
    :ok = route(gateway, [self()])
    socket = ask(url, http("GET /"))
    {call, _} = take()
    assert_raise ArgumentError, fn -> Native.call_data(call, "before the head", 0) end

    for {status, headers, framing, text} <- [
          {101, [], :interim,
           "status 101: a request that is answered in the VM cannot be upgraded"},
          {99, [], :length, "status 99: expected"},
          {70_000, [], :length, "status 70000: expected"},
          {200, [{"a b", ""}], :length, ~s(header name "a b" is not a token)},
          {200, [{"a", "b\r\nc: d"}], :length,
           ~s(the value of header "a" has a control character)},
          {200, [{"content-length", "1"}, {"content-length", "2"}], :length,
           "content-length is not one number"}
        ] do
      assert {:error, why} = Native.call_head(call, status, headers, framing)
      assert why =~ text
    end

    for wrong <- [
          fn -> Native.call_take(make_ref()) end,
          fn -> Native.call_take(:call) end,
          fn -> Native.call_read(call, -1) end,
          fn -> Native.call_read(call, :all) end,
          fn -> Native.call_head(call, 200, [{"a", 1}], :length) end,
          fn -> Native.call_head(call, 200, %{}, :length) end,
          fn -> Native.call_head(call, 200, [{"a", "b"} | :improper], :length) end,
          fn -> Native.call_head(call, 200, [], :unknown) end,
          fn -> Native.call_head(call, "200", [], :length) end,
          fn -> Native.call_data(call, :data, 0) end,
          fn -> Native.call_data(call, ["a list"], 0) end
        ],
        do: assert_raise(ArgumentError, wrong)

    assert Native.call_head(call, 200, [], :chunked) == :ok
    assert_raise ArgumentError, fn -> Native.call_data(call, "abc", 4) end
    assert Native.call_data(call, "abcde", 3) == :ok
    assert {:error, "the response has already been sent"} = Native.call_head(call, 200, [], :none)
    assert Native.call_finish(call) == :ok
    assert RawClient.read_until(socket, "2\r\nde\r\n0\r\n\r\n") =~ "200 OK"
  end

  test "dispatchers are checked", %{gateway: gateway} do
    tcp = %{kind: :tcp, ip: "127.0.0.1", port: 1}
    assert :ok = put_routes(gateway, Map.put(tcp, :dispatchers, []))

    for wrong <- [:pid, [:pid], [make_ref()], [self() | :improper]] do
      assert {:error, why} = put_routes(gateway, Map.put(tcp, :dispatchers, wrong))
      assert why =~ ~s(services["A"].upstreams[0].dispatchers: got )
      assert why =~ "expected a list of processes of this node"
    end
  end
end
