defmodule ExServiceMeshRouter.EndpointStandIn do
  @moduledoc """
  What a Phoenix endpoint is to discovery, without Phoenix: settings in the environment of an
  application, a process that has the endpoint's name, a server, the event of its start.

      define(:some_web, SomeWeb.Endpoint, url: [host: "some.local"])
      start_supervised!(SomeWeb.Endpoint)

  As with Phoenix, it listens with `server: true` and an `http:`, which here is port 0 on loopback
  unless something else is said, and its server is made by its `adapter:`.
  """

  alias ExServiceMeshRouter.Http.Server
  alias ExServiceMeshRouter.Listeners.Listener

  defmodule Adapter do
    @moduledoc "Makes servers as the adapters of Phoenix do, here and on Unix sockets."

    def child_specs(endpoint, config) do
      if config[:tell], do: send(config[:tell], {:child_specs, endpoint, config})

      for scheme <- [:http], options = config[scheme] do
        text = Keyword.get(config, :says, inspect(endpoint))
        suffix = if config[:code_reloader], do: " reloaded", else: ""
        ip = Keyword.get(options, :ip, {127, 0, 0, 1})
        handler = &{{200, [], text <> suffix}, &1}
        server = {Server, handler: handler, ip: ip, port: Keyword.get(options, :port, 0)}
        Supervisor.child_spec(server, id: {endpoint, scheme})
      end
    end
  end

  defmodule TcpAdapter do
    @moduledoc "The same without Unix sockets."

    def child_specs(endpoint, config) do
      if match?([{:ip, {:local, _}} | _], config[:http]),
        do: raise(ArgumentError, "only TCP here")

      Adapter.child_specs(endpoint, config)
    end
  end

  defmodule LateAdapter do
    @moduledoc "Whose own listener frees its port a moment after its end, as the VM may do."

    use GenServer

    # An endpoint asks for its listener before it has its name.
    def child_specs(endpoint, config) do
      if Process.whereis(endpoint),
        do: Adapter.child_specs(endpoint, config),
        else: [%{id: {endpoint, :http}, start: {GenServer, :start_link, [__MODULE__, nil]}}]
    end

    @impl true
    def init(nil) do
      listener = self()
      {holder, monitor} = spawn_monitor(fn -> hold(listener) end)

      receive do
        {^holder, url} -> {:ok, url}
        {:DOWN, ^monitor, _, _, reason} -> {:stop, reason}
      end
    end

    @impl true
    def handle_call(:url, _from, url), do: {:reply, url, url}

    defp hold(listener) do
      {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
      {:ok, port} = :inet.port(socket)
      monitor = Process.monitor(listener)
      send(listener, {self(), "http://127.0.0.1:#{port}"})
      receive do: ({:DOWN, ^monitor, _, _, _} -> Process.sleep(50))
    end
  end

  @doc """
  Names of an application as Phoenix generates it, and of its endpoint, that no other test has:
  applications and modules are the VM's. `unique("auth").application` is `:auth17_web`.
  """
  def unique(name) do
    name = "#{name}#{System.unique_integer([:positive])}"
    namespace = Macro.camelize(name <> "_web")
    %{name: name, application: :"#{name}_web", endpoint: Module.concat(namespace, "Endpoint")}
  end

  @doc "Loads an application with such an endpoint in its configuration."
  def define(application, endpoint, settings) do
    defaults = [adapter: Adapter, http: [ip: {127, 0, 0, 1}, port: 0]]
    settings = Keyword.merge(defaults, settings)
    :ok = load(application)
    Application.put_env(application, endpoint, settings)
    define_module(application, endpoint)
    ExUnit.Callbacks.on_exit(fn -> :application.unload(application) end)
  end

  def load(application) do
    keys = [vsn: ~c"1", modules: [], registered: []]

    case :application.load({:application, application, keys}) do
      {:error, {:already_loaded, _}} -> :ok
      :ok -> :ok
    end
  end

  def define_module(application, endpoint) do
    contents =
      quote do
        @behaviour ExServiceMeshRouter.DiscoverableEndpoint

        def child_spec(options),
          do: %{id: __MODULE__, start: {__MODULE__, :start_link, [options]}, type: :supervisor}

        def start_link(options),
          do: unquote(__MODULE__).start_link(unquote(application), __MODULE__, options)

        def config(key), do: unquote(__MODULE__).config(unquote(application), __MODULE__, key)

        def config_change(changed, []) do
          settings = changed[__MODULE__]
          with pid when is_pid(pid) <- settings[:tell], do: send(pid, {:config_change, settings})
          :ok
        end

        def init(options), do: options

        def call(conn, _options),
          do: unquote(__MODULE__).config(unquote(application), __MODULE__, :plug).(conn)

        def url, do: raise("the public address is nobody's upstream")
        def server_info(scheme), do: unquote(__MODULE__).server_info(__MODULE__, scheme)
      end

    Module.create(endpoint, contents, Macro.Env.location(__ENV__))
  end

  @doc false
  def start_link(application, endpoint, _options) do
    settings = Application.get_env(application, endpoint)

    children =
      if settings[:server], do: settings[:adapter].child_specs(endpoint, settings), else: []

    with {:ok, pid} <- Supervisor.start_link(children, strategy: :one_for_one, name: endpoint) do
      metadata = %{
        pid: pid,
        module: endpoint,
        otp_app: application,
        config: [secret_key_base: "secret"]
      }

      if Keyword.get(settings, :event, true),
        do: apply(:telemetry, :execute, [[:phoenix, :endpoint, :init], %{}, metadata])

      {:ok, pid}
    end
  end

  @doc false
  def config(application, endpoint, key), do: Application.get_env(application, endpoint)[key]

  @doc false
  def server_info(endpoint, :http) do
    case Enum.find(
           Supervisor.which_children(endpoint),
           &Listener.listener?(elem(&1, 0), endpoint)
         ) do
      {_id, pid, _, _} when is_pid(pid) -> {:ok, address(Server.url(pid))}
      {_id, :restarting, _, _} -> :error
      nil -> {:error, :no_server_found}
    end
  end

  defp address("unix:" <> path), do: {:local, path}

  defp address(url) do
    %URI{host: host, port: port} = URI.parse(url)
    {:ok, ip} = :inet.parse_address(to_charlist(host))
    {ip, port}
  end
end
