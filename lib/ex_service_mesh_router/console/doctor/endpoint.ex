defmodule ExServiceMeshRouter.Doctor.Endpoint do
  @moduledoc false
  # Collects what the checks know of an endpoint: its settings, from the endpoint if it runs, and the
  # state of its service. Must not read other settings, which may be secrets.

  alias ExServiceMeshRouter.Doctor.Tenants
  alias ExServiceMeshRouter.Endpoint.Settings
  alias ExServiceMeshRouter.Gateway.Applications
  alias ExServiceMeshRouter.Listeners.Takeover
  alias ExServiceMeshRouter.Registry.Service

  @settings [:url, :http, :https, :server, :check_origin, :force_ssl]

  # hosts: those that are routed to it. state: of its service, or `nil`. taken?: the gateway listens in
  # its place. serves?: `nil` if `server:` is not set.
  defstruct [:endpoint, :application, :settings, :running?, :started?, :hosts, :state, :serves?] ++
              [:taken?, :tenants?, :sockets]

  def new(endpoint, application, service, shared \\ []) do
    settings = Settings.read(endpoint, application, @settings)
    configured = Settings.configured(application, endpoint)

    %__MODULE__{
      endpoint: endpoint,
      application: application,
      settings: settings,
      running?: is_pid(Process.whereis(endpoint)),
      started?: started?(application),
      hosts: if(service, do: Enum.uniq(service.hosts ++ service.derived) -- shared, else: []),
      state: service && Service.state(service),
      serves?: if(Settings.serves?(settings), do: true, else: settings[:server]),
      taken?: Takeover.taken?(configured),
      tenants?: Tenants.used?(application),
      sockets: sockets(endpoint)
    }
  end

  @doc "Returns the name of the module."
  def name(%__MODULE__{endpoint: endpoint}), do: inspect(endpoint)

  @doc "Returns where its own listener is; see `Settings.listener/1`."
  def listener(%__MODULE__{settings: settings}), do: Settings.listener(settings[:http])

  @doc "Returns the port of its own listener, or `nil`."
  def http_port(%__MODULE__{} = it) do
    case listener(it) do
      {:tcp, _ip, port} -> port
      _other -> nil
    end
  end

  @doc "Returns the port of `https:`, or `nil`."
  def https_port(%__MODULE__{settings: settings}),
    do: Settings.https_port(settings[:https])

  @doc "Returns where its links lead; see `Settings.links/1`."
  def links(%__MODULE__{settings: settings}), do: Settings.links(settings)

  defp started?(application) do
    with {:ok, running} <- Applications.running(), do: application in running, else: (_ -> false)
  end

  # The sockets that use the endpoint's `check_origin`. An endpoint without `__sockets__/0` may have one.
  defp sockets(endpoint) do
    for {path, _module, options} <- endpoint.__sockets__(),
        transport <- [:websocket, :longpoll],
        follows_endpoint?(options[transport]),
        uniq: true,
        do: path
  rescue
    UndefinedFunctionError -> ["/live"]
  end

  defp follows_endpoint?(options) when is_list(options),
    do: not Keyword.has_key?(options, :check_origin)

  defp follows_endpoint?(on?), do: on? == true
end
