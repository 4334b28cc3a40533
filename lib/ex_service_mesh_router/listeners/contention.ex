defmodule ExServiceMeshRouter.Listeners.Contention do
  @moduledoc false
  # Resolves port conflicts of endpoints with the gateway or with each other: it takes the port from an
  # endpoint, before its start or while it runs. A private listener replaces it.

  require Logger

  alias ExServiceMeshRouter.Config.Environment
  alias ExServiceMeshRouter.Endpoint.{Candidates, Settings}
  alias ExServiceMeshRouter.Listeners.{Links, Listener, Policy, Takeover}

  @doc """
  Called when the gateway's port is in use. Takes it from the endpoints of this system that may get a
  private listener instead. Returns `:ok` if the port may be free now, otherwise `{:error, holder}` with
  the `{application, endpoint}` that keeps it, or `nil`.
  """
  def free(config) do
    wanted = for ip <- config.ips, do: {ip, config.port}

    holders =
      for {endpoint, application} <- Candidates.all(true),
          Process.whereis(endpoint),
          {:ok, {ip, _port} = address} when is_tuple(ip) <- [Settings.bound(endpoint)],
          Enum.any?(wanted, &Settings.overlap?(&1, address)),
          do: {application, endpoint}

    case Enum.reject(holders, &instead?(&1, config)) do
      [holder | _] -> {:error, holder}
      [] when holders == [] -> {:error, nil}
      [] -> Enum.each(holders, &take_over(&1, config.port))
    end
  end

  defp take_over({application, endpoint}, port) do
    log(endpoint, port, :gateway)
    Takeover.take(application, endpoint, port: port)
    Listener.stop_own(endpoint)
  end

  @doc """
  Called when the gateway listens at the `addresses` of `Gateway.addresses/1`. Changes the settings of
  endpoints before they start; for a running endpoint, the change applies to its next start. Returns the
  `{application, endpoint}` of all endpoints with changed settings.
  """
  def prepare(config, [{_ip, port} | _] = addresses) do
    own = for {ip, port} <- addresses, do: {ip(ip), port}

    endpoints =
      for {endpoint, application} <- Enum.sort(Candidates.all(true)) do
        settings = Settings.configured(application, endpoint)
        %{key: {application, endpoint}, settings: settings, address: address(settings)}
      end

    Enum.filter(endpoints, fn it ->
      prepare(it, rivals(it, endpoints, own), Links.given(it, endpoints, port, config), config)
    end)
    |> Enum.map(& &1.key)
  end

  defp address(settings),
    do: if(Settings.serves?(settings), do: settings |> Takeover.http() |> Settings.address())

  defp rivals(%{key: key, address: address}, endpoints, own) do
    cond do
      Enum.any?(own, &Settings.overlap?(&1, address)) ->
        [:gateway]

      true ->
        for %{key: other, address: its} <- endpoints,
            other != key,
            Settings.overlap?(its, address),
            do: other
    end
  end

  defp prepare(
         %{key: {application, endpoint} = key, settings: settings} = it,
         rivals,
         links,
         config
       ) do
    cond do
      not instead?(key, config) ->
        if rivals == [:gateway] and Process.whereis(endpoint) == nil, do: warn(it)
        false

      Policy.always?(config.private_listeners, endpoint) ->
        Takeover.take(application, endpoint, links)
        true

      rivals == [:gateway] or (rivals != [] and Process.whereis(endpoint) == nil) ->
        unless Takeover.taken?(settings), do: log(endpoint, elem(it.address, 1), hd(rivals))
        Takeover.take(application, endpoint, links)
        true

      Environment.development?() and Settings.serves?(settings) ->
        Takeover.link(application, endpoint, links)
        true

      true ->
        Takeover.taken?(settings)
    end
  end

  defp instead?({application, endpoint}, config) do
    config.discover != false and Candidates.wanted?(endpoint, application, config.discover) and
      Policy.instead?(config.private_listeners, endpoint)
  end

  # The user need not act, so there is no configuration line.
  defp log(endpoint, port, rival) do
    whose =
      case rival do
        :gateway -> "the gateway's"
        {_application, other} -> "also configured for #{inspect(other)}"
      end

    Logger.info(
      "#{inspect(endpoint)} needs no port: port #{port} is #{whose}, and requests reach this " <>
        "endpoint through the gateway"
    )
  end

  defp warn(%{key: {application, endpoint}, address: {_ip, port}}) do
    Logger.error(
      "ExServiceMeshRouter and #{inspect(endpoint)} are both configured with port #{port}, so the " <>
        "endpoint will not start. Give it another port at the end of config/runtime.exs: " <>
        "`config #{inspect(application)}, #{inspect(endpoint)}, http: [port: #{port + 1}]`"
    )
  end

  defp ip(text) do
    {:ok, ip} = text |> to_charlist() |> :inet.parse_address()
    ip
  end
end
