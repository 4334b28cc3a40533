defmodule ExServiceMeshRouter.Load do
  @moduledoc """
  Clients that keep a gateway busy and take note of all that fails: some with one connection for
  all of their requests, some with a new one for each, and one with a WebSocket.
  """

  alias ExServiceMeshRouter.RawClient

  # A text frame, masked with zeros, and what comes back.
  @message <<0x81, 0x84, 0::32, "ping">>
  @echo <<0x81, 4, "ping">>

  defstruct [:counter, :failures, :clients]

  @doc "Starts the clients. `hosts` answer to `GET /` with their name; `web_socket` is an echo."
  def start(url, hosts, web_socket) do
    load = %__MODULE__{
      counter: :counters.new(1, []),
      failures: :ets.new(:failures, [:public, :duplicate_bag])
    }

    works =
      for(n <- 0..3, do: &keep_alive(url, Enum.drop(hosts, rem(n, length(hosts))), &1)) ++
        for(_ <- 1..2, do: &new_connections(url, hosts, &1)) ++
        [&web_socket(url, web_socket, &1)]

    clients = for work <- works, do: Task.async(fn -> work.(client(load)) end)
    %{load | clients: clients}
  end

  @doc "Ends the clients; the longest time, in milliseconds, in which one of them got no answer."
  def stop(load) do
    for %{pid: pid} <- load.clients, do: send(pid, :stop)
    load.clients |> Task.await_many(30_000) |> Enum.max()
  end

  @doc "Answers until now."
  def answers(load), do: :counters.get(load.counter, 1)

  @doc "What has failed until now."
  def failures(load), do: for({reason} <- :ets.tab2list(load.failures), do: reason)

  @doc "Returns when so many more requests were answered."
  def await(load, more), do: await_answers(load, answers(load) + more, now() + 30_000)

  defp await_answers(load, wanted, deadline) do
    cond do
      answers(load) >= wanted ->
        :ok

      now() > deadline ->
        raise "no answers come any more; failed: #{inspect(failures(load))}"

      true ->
        receive do
        after
          1 -> await_answers(load, wanted, deadline)
        end
    end
  end

  defp client(load), do: %{load: load, last: now(), gap: 0}

  defp keep_alive(url, hosts, client), do: keep_alive(url, hosts, nil, client)

  defp keep_alive(url, hosts, nil, client) do
    {client, socket} = attempt(client, fn -> RawClient.connect(url) end)
    unless stopped?(), do: keep_alive(url, hosts, socket, client), else: client.gap
  end

  defp keep_alive(url, [host | hosts], socket, client) do
    {client, result} = ask(client, socket, host, "")
    if result == nil, do: :gen_tcp.close(socket)

    if stopped?(),
      do: client.gap,
      else: keep_alive(url, hosts ++ [host], result && socket, client)
  end

  defp new_connections(url, [host | hosts], client) do
    {client, socket} = attempt(client, fn -> RawClient.connect(url) end)

    {client, _} =
      if socket, do: ask(client, socket, host, "Connection: close\r\n"), else: {client, nil}

    if socket, do: :gen_tcp.close(socket)
    if stopped?(), do: client.gap, else: new_connections(url, hosts ++ [host], client)
  end

  defp ask(client, socket, host, fields) do
    request = "GET / HTTP/1.1\r\nHost: #{host}\r\n#{fields}\r\n"

    {client, answer} =
      attempt(client, fn ->
        RawClient.send(socket, request)
        answer = RawClient.read_until(socket, host)
        true = answer =~ ~r/\AHTTP\/1.1 200 / || raise "got " <> answer
      end)

    {if(answer, do: answered(client), else: client), answer}
  end

  defp web_socket(url, host, client) do
    {client, socket} = attempt(client, fn -> handshake(url, host) end)
    if socket, do: echo(url, host, socket, client), else: again(url, host, client)
  end

  defp again(url, host, client),
    do: if(stopped?(), do: client.gap, else: web_socket(url, host, client))

  defp handshake(url, host) do
    socket = RawClient.connect(url)

    RawClient.send(socket, """
    GET / HTTP/1.1\r
    Host: #{host}\r
    Upgrade: websocket\r
    Connection: upgrade\r
    Sec-WebSocket-Version: 13\r
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
    \r
    """)

    "HTTP/1.1 101" <> _ = RawClient.read_until(socket, "\r\n\r\n")
    socket
  end

  defp echo(url, host, socket, client) do
    {client, answer} =
      attempt(client, fn ->
        RawClient.send(socket, @message)
        RawClient.read_until(socket, @echo)
      end)

    cond do
      stopped?() -> client.gap
      answer -> echo(url, host, socket, answered(client))
      true -> web_socket(url, host, client)
    end
  end

  defp attempt(client, fun) do
    {client, fun.()}
  rescue
    error ->
      :ets.insert(client.load.failures, {Exception.message(error)})
      {client, nil}
  end

  defp answered(client) do
    :counters.add(client.load.counter, 1, 1)
    time = now()
    %{client | last: time, gap: max(client.gap, time - client.last)}
  end

  defp stopped? do
    receive do
      :stop -> true
    after
      0 -> false
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
