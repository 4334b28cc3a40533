defmodule ExServiceMeshRouter.Discovery.Claim do
  @moduledoc false
  # Determines the hosts that an endpoint claims: its own, and the one derived from its application.

  alias ExServiceMeshRouter.Config.{Host, Network, Upstream}
  alias ExServiceMeshRouter.Endpoint.DevNames
  alias ExServiceMeshRouter.Registry.Service

  defstruct [:endpoint, :application, :mistake, hosts: [], derived: []]

  @doc "Makes a claim of the host in the settings. `mistake` is a message about a malformed host, or `nil`."
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
    do: "#{inspect(claim.endpoint)} gets no route: #{malformed(host)}"

  defp mistake(%{derived: derived} = claim, host),
    do: "#{inspect(claim.endpoint)} is only routed as #{Enum.join(derived)}: #{malformed(host)}"

  defp malformed(host), do: "its `url: [host: #{inspect(host)}]` is not a host name"

  @doc """
  Returns the service with these upstreams, without the gateway's own address, over HTTP/2 for an endpoint in
  `http2`. `in_vm` is that of Service.
  """
  def service(claim, upstreams, in_vm, %{own_port: own_port, http2: http2}) do
    upstreams = Enum.reject(upstreams, &own?(&1, own_port))

    upstreams =
      if claim.endpoint in http2, do: Enum.map(upstreams, &Upstream.http2/1), else: upstreams

    %{
      Service.endpoint(claim.endpoint, claim.application, claim.hosts, upstreams, claim.derived)
      | in_vm: in_vm
    }
  end

  # `url: [port: 4000]` without `http:` is the address of the gateway, not of the endpoint.
  defp own?(%{kind: :tcp, ip: ip, port: port}, port),
    do: Network.unmap(ip) in [{127, 0, 0, 1}, {0, 0, 0, 0, 0, 0, 0, 1}]

  defp own?(%{kind: :loopback, port: port}, port), do: true
  defp own?(_upstream, _own_port), do: false
end
