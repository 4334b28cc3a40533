defmodule ExServiceMeshRouter.ClusterCheck.Node do
  @moduledoc """
  A node of a cluster under test, as an application runs it: the gateway of the application, with
  endpoints that take note of each request before they answer.
  """

  alias ExServiceMeshRouter.{Cluster, EndpointStandIn, Network}
  alias ExServiceMeshRouter.Http.{Request, Server}

  defmodule Adapter do
    @moduledoc "An adapter whose server notes the path of each request, and echoes WebSockets."

    def child_specs(endpoint, config) do
      for options <- [config[:http]], is_list(options) do
        handler = &ExServiceMeshRouter.ClusterCheck.Node.handle(&1, config)
        ip = Keyword.get(options, :ip, {127, 0, 0, 1})
        Supervisor.child_spec({Server, handler: handler, ip: ip}, id: {endpoint, :http})
      end
    end
  end

  @doc """
  Starts node `number`; returns its peer process. `options`: `endpoints`, as `{endpoint, host}` or
  `{endpoint, host, settings}`, `folder` for the notes, `delay` before an answer in ms, `gateway` for options of the gateway, `network` if the node has a network namespace.
  """
  def start(number, options) do
    {network, options} = Keyword.pop(options, :network)

    {place, mesh} =
      if network,
        do: {Network.node_options(network, number), Network.mesh(number)},
        else: {[], [ip: {127, 0, 0, 1}]}

    peer = Cluster.start_node("check#{number}", place)
    :ok = Cluster.call(peer, __MODULE__, :boot, [number, [mesh: mesh] ++ options])
    peer
  end

  @doc "The port of the gateway, and the process of the operating system."
  def place(peer) do
    pid = peer |> Cluster.call(:os, :getpid, []) |> List.to_string()
    {Cluster.call(peer, ExServiceMeshRouter, :port, []), pid}
  end

  @doc "What the node routes: `{service, hosts, nodes}`, the same on all nodes of a quiet cluster."
  def routes(peer), do: Cluster.call(peer, __MODULE__, :routed, [])

  # On the node

  @doc false
  def boot(number, options) do
    defaults = [
      port: 0,
      ip: {127, 0, 0, 1},
      server: true,
      mesh: options[:mesh],
      doctor: false
    ]

    gateway = Keyword.merge(defaults, Keyword.get(options, :gateway, []))
    Application.put_all_env(ex_service_mesh_router: gateway)
    {:ok, _} = Application.ensure_all_started(:ex_service_mesh_router)

    notes =
      Path.join(
        options[:folder],
        "#{number}.#{System.unique_integer([:positive])}.#{System.pid()}"
      )

    for endpoint <- options[:endpoints] do
      {endpoint, host, own} = with {endpoint, host} <- endpoint, do: {endpoint, host, []}

      settings = [
        adapter: Adapter,
        server: true,
        http: [ip: {127, 0, 0, 1}, port: 0],
        url: [host: host],
        notes: notes,
        number: number,
        delay: Keyword.get(options, :delay, 0)
      ]

      start_endpoint(endpoint, Keyword.merge(settings, own))
    end

    :ok
  end

  @doc false
  def start_endpoint(endpoint, settings) do
    application = application(endpoint)
    :ok = EndpointStandIn.load(application)
    Application.put_env(application, endpoint, settings)
    if not Code.ensure_loaded?(endpoint), do: EndpointStandIn.define_module(application, endpoint)
    restart_endpoint(endpoint)
  end

  @doc false
  def restart_endpoint(endpoint) do
    {:ok, pid} = endpoint.start_link([])
    Process.unlink(pid)
    :ok
  end

  @doc false
  def stop_endpoint(endpoint), do: Supervisor.stop(endpoint)

  defp application(endpoint),
    do: :"#{endpoint |> Module.split() |> hd() |> Macro.underscore()}"

  @doc false
  def routed do
    for %{source: source} = service <- ExServiceMeshRouter.services(),
        source in [:endpoint, :peer] do
      here = if Enum.any?(service.upstreams, &(&1 =~ "://")), do: [node()], else: []
      there = for %{node: node, state: :serving} <- service.peers, do: node
      {service.name, Enum.sort(service.hosts), Enum.sort(Enum.map(here ++ there, &to_string/1))}
    end
    |> Enum.reject(&match?({_, _, []}, &1))
    |> Enum.sort()
  end

  @doc false
  def handle(%{path: "/ws"} = request, _config), do: {Demo.WebSocket.upgrade(request), request}

  def handle(%{path: "/" <> id} = request, config) do
    {size, request} = Request.reduce_body(request, 0, &(byte_size(&1) + &2))
    note(config[:notes], "#{id} #{size}\n")
    if config[:delay] > 0, do: Process.sleep(config[:delay])
    {{200, [{"x-node", to_string(config[:number])}], id}, request}
  end

  # Before the answer, and with one system call, so that a killed node has noted what it has begun.
  defp note(path, line) do
    {:ok, file} = :file.open(path, [:append, :raw])
    :ok = :file.write(file, line)
    :ok = :file.close(file)
  end
end
