defmodule ExServiceMeshRouter.Registry.Service do
  @moduledoc false
  # One row of the registry: who claims which hosts, and where it listens. `derived` hosts come
  # from the name of the application, see DevNames. `since` is the registry's: when the state became
  # what it is.

  alias ExServiceMeshRouter.Config.Upstream

  @enforce_keys [:key, :name, :hosts, :upstreams, :source]
  defstruct @enforce_keys ++ [:application, :endpoint, :since, derived: []]

  @doc "A service that is no endpoint."
  def static(host, upstreams, source) when source in [:config, :runtime] do
    %__MODULE__{
      key: {:host, host},
      name: host,
      hosts: [host],
      upstreams: upstreams,
      source: source
    }
  end

  @doc "A Phoenix endpoint. Without upstreams it is known, and not listening."
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
  Who gets a host that several claim: what was said in so many words before what was found, what
  listens before what does not, and then the name, so that every start ends the same way.
  """
  def precedence(%{source: :endpoint, upstreams: []} = service), do: {2, service.name}
  def precedence(%{source: :endpoint} = service), do: {1, service.name}
  def precedence(service), do: {0, service.name}

  @doc "As `ExServiceMeshRouter.services/0` shows it."
  def public(service) do
    service
    |> Map.take([:name, :hosts, :source, :application, :endpoint, :since])
    |> Map.put(:upstreams, Enum.map(service.upstreams, &Upstream.to_string/1))
    |> Map.put(:state, state(service))
  end

  @doc "Requests for a service that does not listen get a 503."
  def state(%{upstreams: []}), do: :not_listening
  def state(_service), do: :listening
end
