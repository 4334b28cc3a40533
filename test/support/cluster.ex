defmodule ExServiceMeshRouter.Cluster do
  @moduledoc """
  Other nodes, with everything real on them. A test speaks with them over their standard input and
  output, so that it need not be a node itself, and can cut them off from each other.
  """

  alias Bandit.Pipeline
  alias ExServiceMeshRouter.EndpointStandIn

  @cookie "ex_service_mesh_router_test"

  @doc "Says why there can be no other nodes, or `nil`."
  def unavailable do
    cond do
      not Code.ensure_loaded?(:peer) -> "this OTP has no module peer"
      System.find_executable("epmd") == nil -> "there is no epmd in the path"
      not epmd?() -> "epmd cannot be started on 127.0.0.1:4369"
      true -> nil
    end
  end

  defp epmd? do
    System.cmd("epmd", ["-daemon"])
    Enum.any?(1..100, fn _ -> epmd_answers?() or not is_nil(Process.sleep(20)) end)
  end

  defp epmd_answers?, do: match?({_, 0}, System.cmd("epmd", ["-names"], stderr_to_stdout: true))

  @doc """
  Starts a node under the test's supervisor. `distributed: false` starts one without a name; `host`, `exec` and
  `arguments` are those of `:peer`.
  """
  def start_node(name, options \\ []) do
    id = System.unique_integer([:positive])
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])

    start = %{
      connection: :standard_io,
      wait_boot: 30_000,
      shutdown: :halt,
      args:
        Keyword.get(options, :arguments, []) ++
          [~c"-setcookie", to_charlist(@cookie), ~c"-connect_all", ~c"false" | paths]
    }

    host = Keyword.get(options, :host, ~c"127.0.0.1")
    name = options[:name] || "#{name}#{id}x#{System.pid()}"

    start =
      if Keyword.get(options, :distributed, true),
        do: Map.merge(start, %{name: to_charlist(name), host: host, longnames: true}),
        else: start

    start = Map.merge(start, Map.new(Keyword.take(options, [:exec])))

    child = %{
      id: {__MODULE__, id},
      start: {__MODULE__, :start_peer, [start]},
      restart: :temporary
    }

    peer = ExUnit.Callbacks.start_supervised!(child)
    call(peer, __MODULE__, :prepare, [])
    peer
  end

  @doc false
  def start_peer(start) do
    with {:ok, peer, _node} <- :peer.start_link(start), do: {:ok, peer}
  end

  @doc "Calls a function on the node."
  def call(peer, module, function, arguments),
    do: :peer.call(peer, module, function, arguments, 30_000)

  def name(peer), do: call(peer, :erlang, :node, [])

  @doc "Connects each node with each other one."
  def connect(peers) do
    for a <- peers, b <- peers, a != b, do: true = call(a, Node, :connect, [name(b)])
    :ok
  end

  def disconnect(a, b), do: call(a, :erlang, :disconnect_node, [name(b)])

  @doc "Starts a gateway with `mesh: true` on the node; returns its supervisor."
  def start_gateway(peer, gateway, options \\ []) do
    defaults = [port: 0, ip: {127, 0, 0, 1}, discover: false, mesh: [ip: {127, 0, 0, 1}]]
    options = Keyword.merge(defaults, options)
    {:ok, pid} = call(peer, __MODULE__, :remote, [[name: gateway] ++ options])
    pid
  end

  @doc "Stops a gateway of the node, if there is one, and waits until it has drained."
  def stop_gateway(peer, gateway), do: call(peer, __MODULE__, :stop, [gateway])

  @doc "Ends the node as a power failure does; returns when its process has ended."
  def kill(peer) do
    monitor = Process.monitor(peer)
    pid = call(peer, :os, :getpid, [])
    System.cmd("kill", ["-KILL", List.to_string(pid)])
    receive do: ({:DOWN, ^monitor, :process, _, _} -> :ok)
  end

  @doc "Makes a node of a VM that was started without `distributed`."
  def distribute(peer, name) do
    node = :"#{name}#{System.unique_integer([:positive])}x#{System.pid()}@127.0.0.1"
    {:ok, _} = call(peer, :net_kernel, :start, [[node, :longnames]])
    true = call(peer, :erlang, :set_cookie, [:"#{@cookie}"])
  end

  @doc "Starts a stand-in for an endpoint on the node."
  def start_endpoint(peer, %{application: application, endpoint: endpoint}, settings) do
    defaults = [
      adapter: EndpointStandIn.Adapter,
      http: [ip: {127, 0, 0, 1}, port: 0],
      server: true
    ]

    settings = Keyword.merge(defaults, settings)
    call(peer, __MODULE__, :endpoint, [application, endpoint, settings])
  end

  def stop_endpoint(peer, %{endpoint: endpoint}), do: call(peer, Supervisor, :stop, [endpoint])

  @doc "The lines that the gateways of the node have logged, and their events of peers."
  def log(peer), do: for({_, line} <- call(peer, :ets, :tab2list, [__MODULE__]), do: line)

  @doc "A plug of an endpoint that says where it runs, and what it sees of a client without a socket."
  def plug(%{adapter: {module, _}} = conn) do
    how = if module == Pipeline, do: Pipeline.version(conn), else: :socket
    inspect({node(), how, conn.remote_ip})
  end

  # On the node

  @doc false
  def prepare do
    {:ok, _} = Application.ensure_all_started(:logger)
    for handler <- :logger.get_handler_ids(), do: :logger.remove_handler(handler)
    caller = self()

    spawn(fn ->
      :ets.new(__MODULE__, [:named_table, :public, :ordered_set])
      send(caller, :prepared)
      Process.sleep(:infinity)
    end)

    receive do: (:prepared -> :ok)
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{level: :info})

    for event <- [:join, :leave] do
      name = [:ex_service_mesh_router, :peer, event]
      :ok = apply(:telemetry, :attach, [{__MODULE__, event}, name, &__MODULE__.event/4, nil])
    end

    :ok
  end

  @doc false
  def event([_library | event], _measurements, metadata, nil),
    do: keep("event #{inspect(event)} #{inspect(metadata)}")

  @doc false
  def log(%{msg: {:string, text}}, _config), do: keep(IO.chardata_to_string(text))
  def log(_report, _config), do: :ok

  defp keep(line) do
    :ets.insert(__MODULE__, {:erlang.unique_integer([:monotonic]), line})
  rescue
    # A node that stops ends the table before its last lines. Logger would remove the handler, and say so.
    ArgumentError -> false
  end

  @doc false
  def remote(options) do
    with {:ok, pid} <- ExServiceMeshRouter.Supervisor.start_link(options) do
      Process.unlink(pid)
      {:ok, pid}
    end
  end

  @doc false
  def stop(gateway) do
    with pid when is_pid(pid) <- Process.whereis(Module.concat(gateway, Supervisor)),
         do: Supervisor.stop(pid, :shutdown)
  end

  @doc false
  def join(scope, group) do
    caller = self()

    spawn(fn ->
      {:ok, _} = :pg.start_link(scope)
      :ok = :pg.join(scope, group, self())
      send(caller, :joined)
      Process.sleep(:infinity)
    end)

    receive do: (:joined -> :ok)
  end

  @doc false
  def forget_log, do: :ets.delete_all_objects(__MODULE__)

  @doc false
  # A hello as the gateway says it, caught by a process that its Member takes for another one.
  def hello(gateway) do
    send(Module.concat(gateway, Member), {:greet, [self()], false})
    receive do: ({:exmesh_hello, hello} -> hello)
  end

  @doc false
  def flood(pid, message, count) do
    for _ <- 1..count, do: send(pid, message)
    :ok
  end

  @doc false
  def endpoint(application, endpoint, settings) do
    :ok = EndpointStandIn.load(application)
    Application.put_env(application, endpoint, settings)
    if not Code.ensure_loaded?(endpoint), do: EndpointStandIn.define_module(application, endpoint)
    {:ok, pid} = endpoint.start_link([])
    Process.unlink(pid)
    :ok
  end
end
