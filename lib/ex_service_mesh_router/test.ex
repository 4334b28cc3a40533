defmodule ExServiceMeshRouter.Test do
  @moduledoc """
  Starts a gateway in a test and sends requests to it.

  Under `mix test`, neither the endpoints (their generated settings have `server: false`) nor the
  gateway listen. A test of the routing starts its own gateway on a free port, under the supervisor of
  the test:

      defmodule MyApp.RoutingTest do
        use ExUnit.Case

        import ExServiceMeshRouter.Test

        test "tenants reach the auth application" do
          gateway = start_gateway!()
          assert %{status: 200, body: body} = request(gateway, "tenant1.auth.localhost")
          assert body =~ "Sign in"
        end
      end

  The gateway routes to the endpoints of the running applications, with their real plugs. It gives them
  private listeners, whatever their `server:` is, and stops these with the test. Such a test must not be
  async if other tests depend on the settings of endpoints.
  """

  alias ExServiceMeshRouter.Discovery
  alias ExServiceMeshRouter.Http.Client

  @settle 10_000

  @typedoc "A response; the names of the header fields are in lower case."
  @type response :: %{
          status: 100..599,
          headers: [{String.t(), String.t()}],
          body: binary()
        }

  @doc """
  Starts a gateway under the supervisor of the test and returns its name, the first argument of all
  functions of `ExServiceMeshRouter`. The running endpoints are routed when it returns. It fails the
  test if the gateway cannot start.

  `options` are the keys of `ExServiceMeshRouter.Config`. The defaults do not depend on the
  application's configuration: `port: 0`, `ip: {127, 0, 0, 1}`, `private_listeners: :all`,
  `dev_domain: "localhost"`, `index: false`, `doctor: false`, `workers: 1`, and
  `timeouts: [drain: 1_000]`.

  Each gateway takes one of the VM's dirty IO schedulers, and two must remain free. With the default of
  ten, eight tests can have a gateway at the same time (`mix test --max-cases 4`, or
  `elixir --erl "+SDio 20" -S mix test`).
  """
  @spec start_gateway!(keyword()) :: module()
  def start_gateway!(options \\ []) do
    name = Module.concat(__MODULE__, "Gateway#{System.unique_integer([:positive])}")
    options = Keyword.merge([name: name] ++ defaults(), options)
    # ExUnit is not a dependency.
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
  Returns the URL of a host at the gateway, for another client: `"http://auth.localhost:43211/path"`.
  """
  @spec url(module(), String.t(), String.t()) :: String.t()
  def url(gateway, host, path \\ "/"),
    do: "http://#{host}:#{ExServiceMeshRouter.port(gateway)}#{path}"

  @doc """
  Sends one request with this `Host` and returns the response.

  Options: `:method` (default `"GET"`), `:headers` (a list of `{name, value}`, default `[]`), `:body`
  (default `""`). Redirects are not followed. Raises if the gateway does not answer.
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
