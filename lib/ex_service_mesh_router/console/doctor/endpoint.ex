defmodule ExServiceMeshRouter.Doctor.Endpoint do
  @moduledoc false
  # What the checks know of an endpoint: its settings, from the running one where it runs, and what
  # the gateway makes of it. Only the settings named here are ever taken out of its configuration.

  alias ExServiceMeshRouter.Doctor.Tenants
  alias ExServiceMeshRouter.Endpoint.Settings
  alias ExServiceMeshRouter.Gateway.Applications
  alias ExServiceMeshRouter.Listeners.Takeover
  alias ExServiceMeshRouter.Registry.Service

  @settings [:url, :http, :https, :server, :check_origin, :force_ssl]

  # hosts: those by which it is reached. state: of its service, or `nil`. taken?: the gateway has taken
  # its listening over. serves?: `nil` if nothing says so.
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

  @doc "The name as people write it."
  def name(%__MODULE__{endpoint: endpoint}), do: inspect(endpoint)

  @doc "Where it listens by itself; see `Settings.listener/1`."
  def listener(%__MODULE__{settings: settings}), do: Settings.listener(settings[:http])

  @doc "The port of that, or `nil`."
  def http_port(%__MODULE__{} = it) do
    case listener(it) do
      {:tcp, _ip, port} -> port
      _other -> nil
    end
  end

  @doc "The port of `https:`, or `nil`."
  def https_port(%__MODULE__{settings: settings}),
    do: Settings.https_port(settings[:https])

  @doc "Where its links lead; see `Settings.links/1`."
  def links(%__MODULE__{settings: settings}), do: Settings.links(settings)

  defp started?(application) do
    with {:ok, running} <- Applications.running(), do: application in running, else: (_ -> false)
  end

  # Whether any socket goes by the endpoint's own `check_origin`. Something that cannot be asked
  # may have one.
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
