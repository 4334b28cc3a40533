defmodule ExServiceMeshRouter.Test do
  @moduledoc """
  A gateway for a test, and a small client to ask it.

  Under `mix test` nothing listens: neither the endpoints, whose generated settings say
  `server: false`, nor the gateway. A test that wants to know where a host leads starts a gateway of
  its own, on a free port, under its own supervisor:

      defmodule MyApp.RoutingTest do
        use ExUnit.Case

        import ExServiceMeshRouter.Test

        test "tenants reach the auth application" do
          gateway = start_gateway!()
          assert %{status: 200, body: body} = request(gateway, "tenant1.auth.localhost")
          assert body =~ "Sign in"
        end
      end

  The endpoints of the running applications are behind it, with their real plugs and with private
  listeners, whatever their `server:` says; they are stopped with the test. Such a test cannot be
  async if the settings of endpoints matter to others.
  """

  alias ExServiceMeshRouter.Discovery
  alias ExServiceMeshRouter.Http.Client

  @settle 10_000

  @typedoc "An answer; the names of the header fields are in lower case."
  @type response :: %{
          status: 100..599,
          headers: [{String.t(), String.t()}],
          body: binary()
        }

  @doc """
  Starts a gateway under the supervisor of the test and returns its name, the first argument of all
  functions of `ExServiceMeshRouter`. When it returns, the endpoints that run are routed.

  `options` are the keys of `ExServiceMeshRouter.Config`. They begin, whatever the application is
  configured to, with `port: 0`, `ip: {127, 0, 0, 1}`, `private_listeners: :all`,
  `dev_domain: "localhost"`, `index: false`, `doctor: false`, `workers: 1`, and
  `timeouts: [drain: 1_000]`. It fails the test if the gateway cannot start.

  Each takes one of the VM's dirty IO schedulers, and all of them leave two: as a rule eight tests can
  have one at the same time (`mix test --max-cases 4`, or `elixir --erl "+SDio 20" -S mix test`).
  """
  @spec start_gateway!(keyword()) :: module()
  def start_gateway!(options \\ []) do
    name = Module.concat(__MODULE__, "Gateway#{System.unique_integer([:positive])}")
    options = Keyword.merge([name: name] ++ defaults(), options)
    # ExUnit is there where this is called, and nowhere else.
    case apply(ExUnit.Callbacks, :start_supervised, [{ExServiceMeshRouter.Supervisor, options}]) do
      {:ok, _supervisor} -> :ok
      {:error, reason} -> raise "the gateway cannot start: #{words(reason)}"
    end

    Discovery.await_settled(name, @settle)
    name
  end

  defp words(error) when is_exception(error), do: Exception.message(error)
  defp words({error, _child}) when is_exception(error), do: Exception.message(error)
  defp words(reason), do: Exception.format_exit(reason)

  defp defaults do
    [
      port: 0,
      ip: {127, 0, 0, 1},
      private_listeners: :all,
      dev_domain: "localhost",
      index: false,
      doctor: false,
      workers: 1,
      timeouts: [drain: 1_000]
    ]
  end

  @doc """
  The address of a host at the gateway, for another client: `"http://auth.localhost:43211/path"`.
  """
  @spec url(module(), String.t(), String.t()) :: String.t()
  def url(gateway, host, path \\ "/"),
    do: "http://#{host}:#{ExServiceMeshRouter.port(gateway)}#{path}"

  @doc """
  Sends one request with this `Host`, and returns the whole answer.

  Options: `:method` (`"GET"`), `:headers` (a list of `{name, value}`), `:body`. Redirects are not
  followed.
  """
  @spec request(module(), String.t(), String.t(), keyword()) :: response()
  def request(gateway, host, path \\ "/", options \\ []) do
    [{ip, port} | _] = ExServiceMeshRouter.Gateway.addresses(gateway)
    {:ok, ip} = ip |> to_charlist() |> :inet.parse_address()
    method = options |> Keyword.get(:method, "GET") |> to_string() |> String.upcase()
    fields = [{"host", host} | Keyword.get(options, :headers, [])]

    case Client.request(ip, port, method, path, fields, Keyword.get(options, :body, "")) do
      {:ok, status, headers, body} ->
        %{status: status, headers: headers, body: body}

      {:error, reason} ->
        raise "the gateway did not answer #{url(gateway, host, path)}: #{inspect(reason)}"
    end
  end
end
