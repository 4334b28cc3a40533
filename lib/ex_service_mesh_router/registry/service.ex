defmodule ExServiceMeshRouter.Registry.Service do
  @moduledoc false
  # A service of the registry: the hosts that it claims, and where it listens. `derived` hosts come
  # from the name of the application, see DevNames. The registry sets `since`, the time of the last
  # change of the state.

  alias ExServiceMeshRouter.Config.Upstream

  @enforce_keys [:key, :name, :hosts, :upstreams, :source]
  defstruct @enforce_keys ++ [:application, :endpoint, :since, derived: []]

  @doc "Makes a service that is not an endpoint."
  def static(host, upstreams, source) when source in [:config, :runtime] do
    %__MODULE__{
      key: {:host, host},
      name: host,
      hosts: [host],
      upstreams: upstreams,
      source: source
    }
  end

  @doc "Makes a service of a Phoenix endpoint. Without upstreams, it does not listen."
  def endpoint(endpoint, application, hosts, upstreams, derived \\ []) do
    %__MODULE__{
      key: {:endpoint, endpoint},
      name: inspect(endpoint),
      hosts: hosts,
      derived: derived -- hosts,
      upstreams: upstreams,
      source: :endpoint,
      application: application,
      endpoint: endpoint
    }
  end

  @doc """
  Returns the sort key of a service for a host that several claim: configured services come before
  endpoints, listening endpoints before others, and the name decides, so that every start has the same
  result.
  """
  def precedence(%{source: :endpoint, upstreams: []} = service), do: {2, service.name}
  def precedence(%{source: :endpoint} = service), do: {1, service.name}
  def precedence(service), do: {0, service.name}

  @doc "Returns the map of `ExServiceMeshRouter.services/0`."
  def public(service) do
    service
    |> Map.take([:name, :hosts, :source, :application, :endpoint, :since])
    |> Map.put(:upstreams, Enum.map(service.upstreams, &Upstream.to_string/1))
    |> Map.put(:state, state(service))
  end

  @doc "Returns the state. Requests for a service that does not listen get a 503."
  def state(%{upstreams: []}), do: :not_listening
  def state(_service), do: :listening
end
