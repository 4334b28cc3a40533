defmodule ExServiceMeshRouter.GatewayCase do
  @moduledoc """
  Each test has a gateway of its own, on a free port, with everything real below it.
  """

  use ExUnit.CaseTemplate

  alias ExServiceMeshRouter.Http.Server
  alias ExServiceMeshRouter.{Discovery, RawClient}

  using do
    quote do
      import ExServiceMeshRouter.GatewayCase
      alias ExServiceMeshRouter.RawClient
    end
  end

  @doc "Starts a gateway under the test's supervisor; returns its name."
  def start_gateway(options \\ []) do
    own = Module.concat(__MODULE__, "Gateway#{System.unique_integer([:positive])}")
    {name, options} = Keyword.pop(options, :name, own)
    defaults = [port: 0, ip: {127, 0, 0, 1}, discover: false, timeouts: [drain: 2_000]]
    options = [name: name] ++ Keyword.merge(defaults, options)
    {restart, options} = Keyword.pop(options, :restart, :permanent)
    spec = Supervisor.child_spec({ExServiceMeshRouter.Supervisor, options}, restart: restart)
    ExUnit.Callbacks.start_supervised!(spec)
    name
  end

  @doc "Returns when discovery has asked all endpoints. What has not happened then does not happen."
  def settle(gateway) do
    :ok = Discovery.await_settled(gateway, 5_000)
  end

  @doc "An HTTP server that answers with `text`; returns its URL."
  def start_server(text) when is_binary(text), do: start_server(&{{200, [], text}, &1})

  def start_server(handler) do
    spec = Supervisor.child_spec({Server, handler: handler}, id: make_ref())
    Server.url(ExUnit.Callbacks.start_supervised!(spec))
  end

  @doc "An endpoint that answers one request with these bytes, whatever they are; returns its URL."
  def start_raw_server(bytes) do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, ip: {127, 0, 0, 1}, active: false])
    {:ok, port} = :inet.port(listener)

    ExUnit.Callbacks.start_supervised!({Task,
     fn ->
       {:ok, socket} = :gen_tcp.accept(listener)
       {:ok, _request} = :gen_tcp.recv(socket, 0)
       :ok = :gen_tcp.send(socket, bytes)
       # Until the gateway closes it.
       :gen_tcp.recv(socket, 0)
     end})

    "http://127.0.0.1:#{port}"
  end

  @doc """
  A port that was free on all addresses a moment ago. It is below those that systems choose by themselves, which
  an outgoing connection of another process could get at any time.
  """
  def free_port do
    port = Enum.random(10_240..32_000)

    case :gen_tcp.listen(port, ip: {0, 0, 0, 0}) do
      {:ok, socket} ->
        :gen_tcp.close(socket)
        port

      {:error, :eaddrinuse} ->
        free_port()
    end
  end

  def url(gateway), do: "http://127.0.0.1:#{ExServiceMeshRouter.port(gateway)}"

  @doc "`{status, body}` of a request on a connection of its own."
  def get(gateway, host, path \\ "/") do
    gateway |> url() |> RawClient.exchange(request(host, path)) |> answer()
  end

  def request(host, path \\ "/"),
    do: "GET #{path} HTTP/1.1\r\nHost: #{host}\r\nConnection: close\r\n\r\n"

  def answer("HTTP/1.1 " <> <<status::binary-size(3), _::binary>> = bytes) do
    [_head, body] = String.split(bytes, "\r\n\r\n", parts: 2)
    {String.to_integer(status), body}
  end

  @doc """
  Asks again until the answer is the one wanted, for as long as `within` milliseconds. For what
  happens in another process without telling anybody.
  """
  def eventually(wanted, within \\ 2_000, ask) do
    ask_until(wanted, System.monotonic_time(:millisecond) + within, ask)
  end

  defp ask_until(wanted, deadline, ask) do
    answer = ask.()

    cond do
      answer == wanted ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        ExUnit.Assertions.flunk("expected #{inspect(wanted)} in time, got #{inspect(answer)}")

      true ->
        receive do
        after
          1 -> ask_until(wanted, deadline, ask)
        end
    end
  end
end
