defmodule ExServiceMeshRouter.Http.ServerTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias ExServiceMeshRouter.Http.{Request, Server}
  alias ExServiceMeshRouter.RawClient

  defp start(handler) do
    server = Supervisor.child_spec({Server, handler: handler}, id: make_ref())
    Server.url(start_supervised!(server))
  end

  # Answers with the body of the request, and keeps what the request was in a header.
  defp echo(request) do
    {body, request} = Request.reduce_body(request, [], &[&2, &1])
    {{200, [{"x-request", "#{request.method} #{request.target}"}], body}, request}
  end

  defp exchange(lines, handler) do
    RawClient.exchange(start(handler), Enum.join(lines, "\r\n"))
  end

  describe "requests" do
    test "are answered in order on one connection, however they are sent (RFC 9112, section 9.3)" do
      url = start(&echo/1)

      requests =
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n" <>
          "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none" <>
          "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" <>
          "2;x=y\r\ntw\r\n1\r\no\r\n0\r\nTrailer: t\r\n\r\n" <>
          "DELETE /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

      at_once = RawClient.exchange(url, requests)

      socket = RawClient.connect(url)
      for <<byte <- requests>>, do: RawClient.send(socket, <<byte>>)
      byte_by_byte = RawClient.read_to_end(socket)

      for answers <- [at_once, byte_by_byte] do
        assert ["GET /1", "POST /2", "POST /3", "DELETE /4"] ==
                 Regex.scan(~r/x-request: (.*)\r\n/, answers, capture: :all_but_first)
                 |> List.flatten()

        assert ["", "one", "two", ""] ==
                 Regex.scan(~r/\r\n\r\n([a-z]*)/, answers, capture: :all_but_first)
                 |> List.flatten()
      end
    end

    test "may leave their body unread" do
      body = String.duplicate("x", 200_000)

      answers =
        exchange(
          [
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" <>
              body <> "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
          ],
          &{{404, [], "no"}, &1}
        )

      assert length(String.split(answers, "HTTP/1.1 404 Not Found")) == 3
    end

    test "that cannot be understood are refused, and the connection ends" do
      url = start(&echo/1)

      for {request, status} <- [
            {"nonsense\r\n\r\n", 400},
            {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
            {"GET / HTTP/1.1\r\n\r\n", 400},
            {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
            {"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400},
            {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
            {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
            {"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
             400},
            {"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
            {"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400},
            {"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400},
            {"GET / HTTP/1.1\r\nHost: a\r\n" <> String.duplicate("A: b\r\n", 300) <> "\r\n", 431},
            {"GET / HTTP/1.1\r\nHost: a\r\n" <>
               String.duplicate("A: #{String.duplicate("b", 40_000)}\r\n", 4) <> "\r\n", 431}
          ] do
        assert RawClient.exchange(url, request) =~ ~r/\AHTTP\/1.1 #{status} /,
               "for #{inspect(request)}"
      end

      # The VM closes the socket.
      long = "GET / HTTP/1.1\r\nHost: a\r\nA: #{String.duplicate("b", 70_000)}\r\n\r\n"
      socket = RawClient.connect(url)
      RawClient.send(socket, long)
      assert {:error, _closed} = :gen_tcp.recv(socket, 0, 5_000)
    end
  end

  describe "Expect: 100-continue (RFC 9110, section 10.1.1)" do
    @head "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"

    test "is answered when the body is read" do
      socket = RawClient.connect(start(&echo/1))
      RawClient.send(socket, @head)
      assert RawClient.read_until(socket, "\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n"

      RawClient.send(socket, "ok")
      assert RawClient.read_until(socket, "\r\n\r\nok") =~ ~r/\AHTTP\/1.1 200 OK\r\n/
    end

    test "is not answered when nobody reads it, and then the connection ends" do
      answer = RawClient.exchange(start(&{{404, [], "no"}, &1}), @head)
      assert answer =~ ~r/\AHTTP\/1.1 404 Not Found\r\n/
      assert answer =~ "connection: close"
    end
  end

  describe "answers" do
    test "to HEAD have the length and no body" do
      answer =
        exchange(["HEAD / HTTP/1.1", "Host: a", "Connection: close", "", ""], fn request ->
          {{200, [], "four"}, request}
        end)

      assert answer =~ "content-length: 4\r\n"
      assert String.ends_with?(answer, "\r\n\r\n")
    end

    test "that are streams leave piece by piece" do
      test = self()

      handler = fn request ->
        send(test, {:handler, self()})

        pieces =
          Stream.unfold(:ok, fn :ok ->
            receive do
              :done -> nil
              piece -> {piece, :ok}
            end
          end)

        {{200, [], {:stream, pieces}}, request}
      end

      socket = RawClient.connect(start(handler))
      RawClient.send(socket, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      assert_receive {:handler, pid}, 5_000

      send(pid, "one")
      assert RawClient.read_until(socket, "3\r\none\r\n") =~ "transfer-encoding: chunked\r\n"
      send(pid, "")
      send(pid, "three")
      assert RawClient.read_until(socket, "three\r\n") == "5\r\nthree\r\n"
      send(pid, :done)
      assert RawClient.read_until(socket, "0\r\n\r\n") == "0\r\n\r\n"
    end

    test "that are streams end with the connection in HTTP/1.0" do
      answer = exchange(["GET / HTTP/1.0", "", ""], &{{200, [], {:stream, ["a", "b", "c"]}}, &1})

      assert answer =~ ~r/connection: close\r\n\r\nabc\z/
    end
  end

  test "a Unix socket serves as well" do
    path = Path.join(System.tmp_dir!(), "http-#{System.unique_integer([:positive])}.sock")
    on_exit(fn -> File.rm(path) end)
    server = start_supervised!({Server, handler: &echo/1, ip: {:local, path}})
    assert Server.url(server) == "unix:" <> path

    {:ok, socket} = :gen_tcp.connect({:local, path}, 0, [:binary, active: false])
    RawClient.send(socket, "PUT /unix HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
    assert RawClient.read_to_end(socket) =~ ~r/x-request: PUT \/unix\r\n.*\r\n\r\nhi\z/s
  end

  test "a port that is in use is an error that says so" do
    Process.flag(:trap_exit, true)
    %URI{port: port} = URI.parse(start(&echo/1))

    assert {:error, {:shutdown, :eaddrinuse}} = Server.start_link(handler: &echo/1, port: port)
  end

  test "a server that stops ends its connections" do
    server = start_supervised!({Server, handler: &echo/1})
    socket = RawClient.connect(Server.url(server))
    RawClient.send(socket, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    RawClient.read_until(socket, "\r\n\r\n")

    stop_supervised!(Server)
    assert RawClient.read_to_end(socket) == ""
  end

  test "a client that is silent, or takes too long for a head, is not kept for ever" do
    server = start_supervised!({Server, handler: &echo/1, timeout: 200})
    assert RawClient.read_to_end(RawClient.connect(Server.url(server))) == ""

    socket = RawClient.connect(Server.url(server))
    RawClient.send(socket, "GET / HTTP/1.1\r\nHost: a\r\n")
    # One field after the other, each in time.
    fields = Stream.repeatedly(fn -> Process.sleep(50) && :gen_tcp.send(socket, "A: b\r\n") end)
    task = Task.async(fn -> Enum.find(fields, &(&1 != :ok)) end)
    assert {:error, _closed} = Task.await(task)
  end

  test "a connection has one request where it is not kept" do
    server = start_supervised!({Server, handler: &echo/1, keep_alive: false})
    request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = RawClient.exchange(Server.url(server), request <> request)
    assert [_nothing, head] = String.split(answer, "HTTP/1.1 200 OK")
    assert head =~ "connection: close\r\n"
  end

  test "a handler that fails answers 500, and 503 where a process is gone that it asks" do
    raising = start(fn _request -> raise "on purpose" end)
    asking = start(fn _request -> GenServer.call(:nobody, :question) end)
    request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

    log =
      capture_log(fn -> assert RawClient.exchange(raising, request) =~ ~r/\AHTTP\/1.1 500 / end)

    assert log =~ "on purpose"
    assert RawClient.exchange(asking, request) =~ ~r/\AHTTP\/1.1 503 /
  end

  test "no name of a field becomes an atom" do
    name = "Never-Seen-#{System.unique_integer([:positive])}"
    handler = &{{200, [], Request.one(&1, String.downcase(name))}, &1}
    answer = RawClient.exchange(start(handler), "GET / HTTP/1.0\r\n#{name}: there\r\n\r\n")
    assert answer =~ "there"

    for name <- [name, String.downcase(name)],
        do: assert_raise(ArgumentError, fn -> String.to_existing_atom(name) end)
  end
end
