defmodule ExServiceMeshRouter.ClusterCheck.Clients do
  @moduledoc """
  Clients of a cluster under test. Each has a seed, so that it asks for the same in each run: GETs, POSTs
  with bodies of all sizes, by length and in chunks, on kept and on new connections, and WebSockets. A
  client goes to another gateway if one cannot be connected to or closes a kept connection; everything
  else that is not a 200 with its own id is a failure, which it takes note of.
  """

  @timeout 20_000
  @sizes [0, 10, 1_000, 20_000, 65_536, 70_000, 300_000]

  defstruct [:entries, :results, :tasks, :stop]

  @doc "Starts `count` clients and `sockets` WebSockets to `host`. `entries` is a table of
  `{node, port, options}`, with options for `:gen_tcp`."
  def start(entries, host, count, sockets, seed) do
    results = :ets.new(:results, [:public, :ordered_set, write_concurrency: true])
    stop = :atomics.new(1, [])
    state = %{entries: entries, results: results, host: host, stop: stop, socket: nil, entry: nil}

    clients =
      for n <- 1..count do
        Task.async(fn ->
          :rand.seed(:exsss, {seed, n, 1})
          ask(state, n, 0)
        end)
      end

    web_sockets =
      for n <- 1..sockets//1 do
        Task.async(fn ->
          :rand.seed(:exsss, {seed, n, 2})
          web_socket(state, n, 0)
        end)
      end

    %__MODULE__{entries: entries, results: results, stop: stop, tasks: clients ++ web_sockets}
  end

  @doc "Ends the clients; returns their results as maps."
  def stop(clients) do
    :atomics.put(clients.stop, 1, 1)
    Task.await_many(clients.tasks, 60_000)
    for {_id, result} <- :ets.tab2list(clients.results), do: result
  end

  def count(clients), do: :ets.info(clients.results, :size)

  def now, do: System.monotonic_time(:millisecond)

  defp stopped?(state), do: :atomics.get(state.stop, 1) == 1

  defp ask(state, n, count) do
    state = connected(state)

    cond do
      stopped?(state) ->
        :ok

      state.socket == nil ->
        ask(state, n, count)

      true ->
        {method, request} = request(state.host, "#{n}-#{count}")
        began = now()
        answer = exchange(state.socket, request, "#{n}-#{count}")

        note(state, "#{n}-#{count}", method, began, answer)
        ask(after_answer(state, answer), n, count + 1)
    end
  end

  defp note(state, id, method, began, answer) do
    result = %{
      id: id,
      method: method,
      entry: state.entry,
      began: began,
      ended: now(),
      answer: answer
    }

    :ets.insert(state.results, {id, result})
  end

  defp after_answer(state, {:ok, :keep}) do
    if :rand.uniform(10) == 1, do: disconnected(state), else: state
  end

  defp after_answer(state, _answer), do: disconnected(state)

  defp disconnected(state) do
    :gen_tcp.close(state.socket)
    %{state | socket: nil}
  end

  defp connected(%{socket: nil} = state) do
    case :ets.tab2list(state.entries) do
      [] ->
        Process.sleep(5)
        state

      entries ->
        {node, port, options} = Enum.random(entries)
        options = [:binary, active: false, nodelay: true] ++ options

        case :gen_tcp.connect({127, 0, 0, 1}, port, options, 1_000) do
          {:ok, socket} ->
            Map.merge(state, %{socket: socket, entry: node})

          {:error, _} ->
            Process.sleep(2)
            state
        end
    end
  end

  defp connected(state), do: state

  defp request(host, id) do
    head = fn method, fields -> "#{method} /#{id} HTTP/1.1\r\nHost: #{host}\r\n#{fields}\r\n" end

    case :rand.uniform(10) do
      n when n <= 7 -> {:get, head.("GET", "")}
      n -> {:post, post(head, :binary.copy("x", Enum.random(@sizes)), n == 10)}
    end
  end

  defp post(head, body, true = _chunked) do
    chunks =
      for chunk <- chunks(body),
          do: [Integer.to_string(byte_size(chunk), 16), "\r\n", chunk, "\r\n"]

    [head.("POST", "Transfer-Encoding: chunked\r\n"), chunks, "0\r\n\r\n"]
  end

  defp post(head, body, false),
    do: [head.("POST", "Content-Length: #{byte_size(body)}\r\n"), body]

  defp chunks(""), do: []
  defp chunks(<<chunk::binary-size(8_192), rest::binary>>), do: [chunk | chunks(rest)]
  defp chunks(rest), do: [rest]

  # `{:ok, :keep}`, `{:ok, :close}`, or `{:failed, why}`.
  defp exchange(socket, request, id) do
    with :ok <- :gen_tcp.send(socket, request),
         {:ok, head, rest} <- head(socket, "") do
      [line | fields] = String.split(head, "\r\n")
      fields = String.downcase(Enum.join(fields, "\n"))
      [_, length] = Regex.run(~r/content-length: (\d+)/, fields) || [nil, "0"]
      body = body(socket, rest, String.to_integer(length))

      cond do
        not String.starts_with?(line, "HTTP/1.1 200 ") -> {:failed, {line, body}}
        body != id -> {:failed, {:other_body, body}}
        fields =~ "connection: close" -> {:ok, :close}
        true -> {:ok, :keep}
      end
    else
      {:error, reason} -> {:failed, reason}
    end
  end

  defp head(socket, read) do
    case String.split(read, "\r\n\r\n", parts: 2) do
      ["HTTP/1.1 1" <> _, rest] ->
        head(socket, rest)

      [head, rest] ->
        {:ok, head, rest}

      [_] ->
        with {:ok, more} <- :gen_tcp.recv(socket, 0, @timeout), do: head(socket, read <> more)
    end
  end

  defp body(_socket, read, length) when byte_size(read) >= length, do: read

  defp body(socket, read, length) do
    case :gen_tcp.recv(socket, 0, @timeout) do
      {:ok, more} -> body(socket, read <> more, length)
      {:error, reason} -> "cut off: #{reason}"
    end
  end

  @message <<0x81, 0x84, 0::32, "ping">>
  @echo <<0x81, 4, "ping">>

  # A closed WebSocket is no failure: its client connects again, which must succeed.
  defp web_socket(state, n, count) do
    state = connected(state)

    cond do
      stopped?(state) ->
        :ok

      state.socket == nil ->
        web_socket(state, n, count)

      true ->
        began = now()

        handshake =
          "GET /ws HTTP/1.1\r\nHost: #{state.host}\r\nUpgrade: websocket\r\nConnection: upgrade\r\n" <>
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

        with :ok <- :gen_tcp.send(state.socket, handshake),
             {:ok, "HTTP/1.1 101" <> _} <- :gen_tcp.recv(state.socket, 0, @timeout) do
          note(state, "ws#{n}-#{count}", :web_socket, began, {:ok, :keep})
          echo(state)
        else
          other -> note(state, "ws#{n}-#{count}", :web_socket, began, {:failed, other})
        end

        web_socket(disconnected(state), n, count + 1)
    end
  end

  defp echo(state) do
    with false <- stopped?(state),
         :ok <- :gen_tcp.send(state.socket, @message),
         {:ok, @echo} <- :gen_tcp.recv(state.socket, byte_size(@echo), @timeout) do
      receive do
      after
        50 -> echo(state)
      end
    end
  end
end
