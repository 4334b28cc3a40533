defmodule ExServiceMeshRouter.Doctor.Endpoint do
  @moduledoc false
  # What the checks know of an endpoint: its settings, from the running one where it runs, and what
  # the gateway makes of it. Only the settings named here are ever taken out of its configuration.

  alias ExServiceMeshRouter.{Doctor.Tenants, Service}

  @settings [:url, :http, :https, :server, :check_origin, :force_ssl]

  # hosts: those by which it is reached. state: of its service, or `nil`.
  defstruct [:endpoint, :application, :settings, :running?, :started?, :hosts, :state, :serves?] ++
              [:tenants?, :sockets]

  def new(endpoint, application, service, shared \\ []) do
    running? = is_pid(Process.whereis(endpoint))
    settings = for key <- @settings, do: {key, setting(endpoint, application, key, running?)}

    %__MODULE__{
      endpoint: endpoint,
      application: application,
      settings: settings,
      running?: running?,
      started?: started?(application),
      hosts: if(service, do: Enum.uniq(service.hosts ++ service.derived) -- shared, else: []),
      state: service && Service.state(service),
      serves?: serves?(settings[:server]),
      tenants?: Tenants.used?(application),
      sockets: sockets(endpoint)
    }
  end

  @doc "The name as people write it."
  def name(%__MODULE__{endpoint: endpoint}), do: inspect(endpoint)

  @doc "The host in its settings, as Phoenix understands it."
  def host(endpoint, application) do
    case url(setting(endpoint, application, :url, false))[:host] do
      host when is_binary(host) -> host
      {:system, variable} -> System.get_env(variable) || "localhost"
      _ -> "localhost"
    end
  end

  @doc "The port of `http:`, or `nil` where it has none, or none that is a number."
  def http_port(%__MODULE__{settings: settings}), do: port(settings[:http])

  @doc "The port of `https:`."
  def https_port(%__MODULE__{settings: settings}), do: port(settings[:https])

  @doc "`{scheme, host, port, explicit?}` of the links that it writes; Phoenix's rule."
  def url(%__MODULE__{settings: settings} = it) do
    url = url(settings[:url])

    {scheme, port} =
      cond do
        is_list(settings[:https]) -> {"https", https_port(it) || 443}
        is_list(settings[:http]) -> {"http", http_port(it) || 80}
        true -> {"http", 80}
      end

    explicit = integer(url[:port])
    {url[:scheme] || scheme, url[:host] || "localhost", explicit || port, explicit != nil}
  end

  def url(list) when is_list(list), do: list
  def url(_other), do: []

  defp port(options) when is_list(options) do
    # `:inet6` and the like stand among the options.
    options = Enum.filter(options, &match?({_, _}, &1))

    unless match?({:local, _}, List.keyfind(options, :ip, 0, {:ip, nil}) |> elem(1)),
      do: options |> List.keyfind(:port, 0, {:port, nil}) |> elem(1) |> integer()
  end

  defp port(_other), do: nil

  defp integer(port) when is_integer(port), do: port
  defp integer({:system, variable}), do: variable |> System.get_env() |> integer()

  defp integer(text) when is_binary(text) do
    case Integer.parse(text) do
      {port, ""} -> port
      _ -> nil
    end
  end

  defp integer(_other), do: nil

  # By Phoenix's rule: `nil` is not said, and then `mix phx.server` says it.
  defp serves?(nil), do: if(Application.get_env(:phoenix, :serve_endpoints) == true, do: true)
  defp serves?(server), do: server == true

  defp started?(application) do
    List.keymember?(Application.started_applications(), application, 0)
  end

  defp setting(endpoint, application, key, true) do
    endpoint.config(key)
  rescue
    _ -> setting(endpoint, application, key, false)
  catch
    _kind, _reason -> setting(endpoint, application, key, false)
  end

  defp setting(endpoint, application, key, false) do
    case Application.get_env(application, endpoint) do
      settings when is_list(settings) -> Keyword.get(settings, key)
      _ -> nil
    end
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
