defmodule ExServiceMeshRouter.Discovery.Claim do
  @moduledoc false
  # The hosts that an endpoint asks for: its own, and the one derived from its application.

  alias ExServiceMeshRouter.Config.{Host, Network}
  alias ExServiceMeshRouter.Endpoint.DevNames
  alias ExServiceMeshRouter.Registry.Service

  defstruct [:endpoint, :application, :mistake, hosts: [], derived: []]

  @doc "From the host of its settings. `mistake` says what is wrong with that, or is `nil`."
  def new(endpoint, application, host, %{dev_domain: dev_domain}) do
    claim = %__MODULE__{
      endpoint: endpoint,
      application: application,
      derived: DevNames.hosts(application, endpoint, dev_domain)
    }

    case Host.normalise(host) do
      {:ok, host} -> %{claim | hosts: [host]}
      :error -> %{claim | mistake: mistake(claim, host)}
    end
  end

  defp mistake(%{derived: []} = claim, host),
    do: "#{inspect(claim.endpoint)} gets no route: #{no_host(host)}"

  defp mistake(%{derived: derived} = claim, host),
    do: "#{inspect(claim.endpoint)} is only routed as #{Enum.join(derived)}: #{no_host(host)}"

  defp no_host(host), do: "its `url: [host: #{inspect(host)}]` is no host name"

  @doc "The service with these upstreams, of which the gateway itself is none."
  def service(claim, upstreams, %{own_port: own_port}) do
    upstreams = Enum.reject(upstreams, &own?(&1, own_port))
    Service.endpoint(claim.endpoint, claim.application, claim.hosts, upstreams, claim.derived)
  end

  # An endpoint that only says `url: [port: 4000]` means the gateway, not itself.
  defp own?(%{kind: :tcp, ip: ip, port: port}, port),
    do: Network.unmap(ip) in [{127, 0, 0, 1}, {0, 0, 0, 0, 0, 0, 0, 1}]

  defp own?(%{kind: :loopback, port: port}, port), do: true
  defp own?(_upstream, _own_port), do: false
end
