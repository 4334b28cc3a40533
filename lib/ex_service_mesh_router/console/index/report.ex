defmodule ExServiceMeshRouter.Console.Index.Report do
  @moduledoc false
  # Gathers the content of the index for all forms.

  alias ExServiceMeshRouter.{Gateway, Handover, Mesh, Registry}
  alias ExServiceMeshRouter.Config.Host
  alias ExServiceMeshRouter.Console.Index.{Findings, Live, Sampler}

  @doc "Returns the report; `asked` is the unknown host of the request, or `nil`."
  def new(config, asked) do
    services = ExServiceMeshRouter.services(config.name)
    port = ExServiceMeshRouter.port(config.name)
    %{live: live, errors: errors} = Sampler.now(config.name)

    %{
      gateway: %{
        software: "ex_service_mesh_router",
        version: version(),
        port: port,
        addresses: addresses(config.name),
        workers: config.native.workers,
        handover: Handover.text(config.name)
      },
      asked: asked,
      nearest: asked && Host.nearest(asked, Enum.flat_map(services, & &1.hosts)),
      services: Enum.map(services, &service(&1, port, live)),
      mesh: Mesh.status(config.name),
      findings: Findings.now(config.name),
      errors: errors,
      history: Registry.history(config.name)
    }
  end

  @doc "Returns the report for JSON, with only the latest sample of each service."
  def plain(report) do
    services = for service <- report.services, do: Map.update!(service, :live, &Live.latest/1)
    history = for {time, line} <- report.history, do: %{time: time, line: line}
    %{report | services: services, history: history}
  end

  @doc "Returns the gateway's addresses as text."
  def addresses(name), do: name |> Gateway.addresses() |> Enum.map(&Gateway.text/1)

  defp version do
    case Application.spec(:ex_service_mesh_router, :vsn) do
      nil -> ""
      version -> to_string(version)
    end
  end

  @shown [:name, :hosts, :upstreams, :peers, :in_vm, :state, :source, :application, :since]

  defp service(service, port, live) do
    service
    |> Map.take(@shown)
    |> Map.put(:live, Map.get(live, service.name, []))
    |> Map.put(:urls, for(host <- service.hosts, do: url(host, port)))
  end

  @doc "Returns the URL of a host on the gateway's port."
  def url(host, 80), do: "http://#{host}/"
  def url(host, port), do: "http://#{host}:#{port}/"
end
