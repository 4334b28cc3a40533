defmodule Demo.Service do
  @moduledoc """
  Runs one service of the demo, in place of a Phoenix endpoint. It listens on a free port and registers
  with the gateway.

  To avoid dependencies, the demo uses the HTTP server and the JSON encoder of the library. Both are
  internal: use Phoenix, or Plug and Bandit, for your services.

  | path | what it shows |
  | --- | --- |
  | `/` | a page that names the service and the tenant |
  | `/headers` | the request as the service received it, as JSON |
  | `/sse` | a stream of server-sent events, one each second |
  | `/upload` | `PUT` or `POST`: size and SHA-256 of the body, whatever its size |
  | `/ws` | a WebSocket that echoes |
  """

  alias Demo.{Page, WebSocket}
  alias ExServiceMeshRouter.Http.{Request, Server}
  alias ExServiceMeshRouter.Json
  alias Router.Shared.TenantResolver

  @typedoc """
  `name` and `host` of the service, and `peers`, the hosts of all services, for the links. On several
  nodes also `node`, the number of this one, and `endpoint`, the module that discovery finds.
  """
  @type option ::
          {:name, String.t()}
          | {:host, String.t()}
          | {:peers, [String.t()]}
          | {:node, pos_integer()}
          | {:endpoint, module()}

  @spec child_spec([option()]) :: Supervisor.child_spec()
  def child_spec(options) do
    %{id: {__MODULE__, options[:host]}, start: {__MODULE__, :start_link, [options]}}
  end

  @doc false
  def start_link(options), do: options |> Map.new() |> start()

  # Gateways tell each other only of endpoints, so on several nodes the service is one.
  defp start(%{endpoint: endpoint} = service),
    do: Server.start_link(name: endpoint, handler: &served_by(call(&1, service), service.node))

  # Registers at each start, because a restarted service has another port.
  defp start(service) do
    with {:ok, server} <- Server.start_link(handler: &call(&1, service)) do
      :ok = ExServiceMeshRouter.put_service(service.host, Server.url(server))
      {:ok, server}
    end
  end

  # The status of a WebSocket is `:upgrade`.
  defp served_by({{status, headers, body}, request}, node),
    do: {{status, [{"x-served-by", "node #{node}"} | headers], body}, request}

  @doc "Handles a request."
  def call(%{path: "/upload"} = request, service), do: upload(request, service)

  def call(%{method: method} = request, service) when method in ["GET", "HEAD"],
    do: {get(request.path, request, service), request}

  def call(request, _service), do: {not_allowed("GET, HEAD"), request}

  defp get("/", request, service) do
    host = Request.one(request, "host") || service.host
    page = Page.render(service, host, tenant(request, service))
    {200, [{"content-type", "text/html; charset=utf-8"}], page}
  end

  defp get("/headers", request, service) do
    headers = for {name, value} <- request.headers, do: [name, value]

    json(%{
      service: service.name,
      tenant: tenant(request, service),
      method: request.method,
      target: request.target,
      headers: headers
    })
  end

  defp get("/sse", _request, service) do
    headers = [{"content-type", "text/event-stream"}, {"cache-control", "no-cache"}]

    events =
      Stream.iterate(0, fn count ->
        Process.sleep(1_000)
        count + 1
      end)
      |> Stream.map(fn count ->
        time = Calendar.strftime(DateTime.utc_now(), "%H:%M:%S UTC")
        "id: #{count}\ndata: #{speaker(service)} says it is #{time}\n\n"
      end)

    {200, headers, {:stream, events}}
  end

  defp get("/ws", request, _service), do: WebSocket.upgrade(request)

  defp get(_path, _request, service) do
    {404, [{"content-type", "text/plain"}], "#{service.name} has no such page.\n"}
  end

  defp upload(%{method: method} = request, service) when method in ["PUT", "POST"] do
    {{size, hash}, request} =
      Request.reduce_body(request, {0, :crypto.hash_init(:sha256)}, fn data, {size, hash} ->
        {size + byte_size(data), :crypto.hash_update(hash, data)}
      end)

    sha256 = hash |> :crypto.hash_final() |> Base.encode16(case: :lower)
    {json(%{service: service.name, bytes: size, sha256: sha256}), request}
  end

  defp upload(request, _service), do: {not_allowed("PUT, POST"), request}

  defp speaker(%{node: node, name: name}), do: "#{name} on node #{node}"
  defp speaker(%{name: name}), do: name

  defp tenant(request, service) do
    case TenantResolver.resolve(Request.one(request, "host"), base: service.host) do
      {:ok, tenant} -> tenant
      :error -> nil
    end
  end

  defp json(value), do: {200, [{"content-type", "application/json"}], [Json.encode(value), "\n"]}

  defp not_allowed(methods) do
    {405, [{"allow", methods}, {"content-type", "text/plain"}], "Allowed methods: #{methods}.\n"}
  end
end
