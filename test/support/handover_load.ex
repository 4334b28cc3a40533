defmodule ExServiceMeshRouter.HandoverLoad do
  @moduledoc """
  Clients that keep a port busy while it is handed over, and take note of all that fails: kept connections, new
  connections, slow uploads, server-sent events, WebSockets. A gateway that drains closes a WebSocket, and its
  client connects again; a connection is closed after a response that says so. Everything else is a failure.
  """

  @timeout 20_000
  @clients [kept: 4, new: 3, upload: 2, events: 2, web_socket: 6]
  @message <<0x81, 0x84, 0::32, "ping">>
  @echo <<0x81, 4, "ping">>

  defstruct [:results, :stop, :tasks]

  def start(port, host) do
    results = :ets.new(:results, [:public, :duplicate_bag, write_concurrency: true])
    stop = :atomics.new(1, [])
    state = %{port: port, host: host, results: results, stop: stop, socket: nil}

    tasks =
      for {kind, count} <- @clients, _ <- 1..count, do: Task.async(fn -> repeat(kind, state) end)

    %__MODULE__{results: results, stop: stop, tasks: tasks}
  end

  @doc """
  Ends the clients; returns `%{requests:, failures:, refused:, longest:, paused:}`: the longest request on a new
  connection in ms, and the longest one at one of the `moments`, which are `DateTime`s.
  """
  def stop(load, moments \\ []) do
    :atomics.put(load.stop, 1, 1)
    Task.await_many(load.tasks, 60_000)
    report(load, for(moment <- moments, do: DateTime.to_unix(moment, :microsecond)))
  end

  def count(load), do: :ets.info(load.results, :size)

  @doc "Returns when so many more requests were answered."
  def await(load, more) do
    wanted = count(load) + more
    ExServiceMeshRouter.GatewayCase.eventually(true, 30_000, fn -> count(load) >= wanted end)
  end

  @doc "The failures until now."
  def failures(load),
    do: for({kind, why, _, _} <- :ets.tab2list(load.results), why != :ok, do: {kind, why})

  # A moment is known to some milliseconds.
  @around 20_000

  defp report(load, moments) do
    failures = failures(load)
    new = for {:new, :ok, began, time} <- :ets.tab2list(load.results), do: {began, time}

    paused =
      for {began, time} <- new,
          Enum.any?(moments, &(began <= &1 + @around and began + time >= &1 - @around)),
          do: time

    %{
      requests: count(load),
      failures: failures,
      refused: Enum.count(failures, &match?({_, {:connect, _}}, &1)),
      longest: new |> Enum.map(&elem(&1, 1)) |> longest(),
      paused: longest(paused)
    }
  end

  defp longest(times), do: Float.round(Enum.max(times, fn -> 0 end) / 1_000, 1)

  defp repeat(kind, state) do
    if :atomics.get(state.stop, 1) == 0 do
      began = System.os_time(:microsecond)
      start = System.monotonic_time(:microsecond)

      {result, state} =
        try do
          {:ok, run(kind, state)}
        catch
          {:failed, why} -> {why, close(state)}
        end

      time = System.monotonic_time(:microsecond) - start
      :ets.insert(state.results, {kind, result, began, time})
      repeat(kind, state)
    end
  end

  defp run(:kept, state) do
    state = connect(state)
    send!(state, head("GET / HTTP/1.1", state))
    {head, _body} = response(state)
    if head =~ ~r/connection: close/i, do: close(state), else: state
  end

  defp run(:new, state) do
    state = connect(close(state))
    send!(state, head("GET / HTTP/1.1", state, "Connection: close\r\n"))
    response(state)
    close(state)
  end

  defp run(:upload, state) do
    state = connect(close(state))
    send!(state, head("POST / HTTP/1.1", state, "Content-Length: 20000\r\n"))

    for _ <- 1..20 do
      Process.sleep(50)
      send!(state, :binary.copy("x", 1_000))
    end

    {_head, body} = response(state)
    unless String.ends_with?(body, " 20000"), do: throw({:failed, {:upload, body}})
    close(state)
  end

  defp run(:events, state) do
    state = connect(close(state))
    send!(state, head("GET /events HTTP/1.1", state))
    read = read_until(state, "\r\n0\r\n\r\n")
    unless read =~ "data: 40\n", do: throw({:failed, {:events, read}})
    close(state)
  end

  defp run(:web_socket, state) do
    state = connect(close(state))

    send!(
      state,
      head(
        "GET /ws HTTP/1.1",
        state,
        "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n" <>
          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
      )
    )

    read = read_until(state, "\r\n\r\n")
    unless read =~ "HTTP/1.1 101 ", do: throw({:failed, {:handshake, read}})
    echo(state)
    close(state)
  end

  # Until the drain closes it. A reset and a timeout are failures.
  defp echo(state) do
    with 0 <- :atomics.get(state.stop, 1),
         :ok <- :gen_tcp.send(state.socket, @message),
         {:ok, @echo} <- :gen_tcp.recv(state.socket, byte_size(@echo), @timeout) do
      Process.sleep(20)
      echo(state)
    else
      1 -> :ok
      {:error, :closed} -> :ok
      other -> throw({:failed, {:web_socket, other}})
    end
  end

  defp head(line, state, fields \\ ""), do: "#{line}\r\nHost: #{state.host}\r\n#{fields}\r\n"

  defp connect(%{socket: nil} = state) do
    options = [:binary, active: false, nodelay: true, show_econnreset: true]

    case :gen_tcp.connect({127, 0, 0, 1}, state.port, options, @timeout) do
      {:ok, socket} -> %{state | socket: socket}
      {:error, reason} -> throw({:failed, {:connect, reason}})
    end
  end

  defp connect(state), do: state

  defp close(%{socket: nil} = state), do: state

  defp close(state) do
    :gen_tcp.close(state.socket)
    %{state | socket: nil}
  end

  defp send!(state, bytes) do
    with {:error, reason} <- :gen_tcp.send(state.socket, bytes),
         do: throw({:failed, {:send, reason}})
  end

  defp response(state) do
    read = read_until(state, "\r\n\r\n", "", &String.contains?/2)
    [head, body] = String.split(read, "\r\n\r\n", parts: 2)
    unless head =~ "HTTP/1.1 200 ", do: throw({:failed, {:status, head}})
    [_, length] = Regex.run(~r/content-length: (\d+)/i, head)
    {head, body(state, body, String.to_integer(length))}
  end

  defp body(_state, read, length) when byte_size(read) >= length, do: read
  defp body(state, read, length), do: body(state, read <> recv!(state, read), length)

  defp read_until(state, ending, read \\ "", found? \\ &String.ends_with?/2) do
    read = read <> recv!(state, read)
    if found?.(read, ending), do: read, else: read_until(state, ending, read, found?)
  end

  defp recv!(state, read) do
    case :gen_tcp.recv(state.socket, 0, @timeout) do
      {:ok, bytes} -> bytes
      {:error, reason} -> throw({:failed, {:recv, reason, String.slice(read, 0, 200)}})
    end
  end
end
