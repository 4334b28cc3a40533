defmodule ExServiceMeshRouter.Console.Index.Report do
  @moduledoc false
  # What the index says, in whichever form: gathered once, from the same functions that users have.

  alias ExServiceMeshRouter.{Gateway, Registry}
  alias ExServiceMeshRouter.Config.Host
  alias ExServiceMeshRouter.Console.Index.{Findings, Live, Sampler}

  @doc "The report; `asked` is the unknown host it answers for, or `nil`."
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
        workers: config.native.workers
      },
      asked: asked,
      nearest: asked && Host.nearest(asked, Enum.flat_map(services, & &1.hosts)),
      services: Enum.map(services, &service(&1, port, live)),
      findings: Findings.now(config.name),
      errors: errors,
      history: Registry.history(config.name)
    }
  end

  @doc "The report as JSON has it: of what is drawn, only the latest numbers."
  def plain(report) do
    services = for service <- report.services, do: Map.update!(service, :live, &Live.latest/1)
    history = for {time, line} <- report.history, do: %{time: time, line: line}
    %{report | services: services, history: history}
  end

  @doc "Where the gateway listens, as people write it."
  def addresses(name), do: name |> Gateway.addresses() |> Enum.map(&Gateway.text/1)

  defp version do
    case Application.spec(:ex_service_mesh_router, :vsn) do
      nil -> ""
      version -> to_string(version)
    end
  end

  defp service(service, port, live) do
    service
    |> Map.take([:name, :hosts, :upstreams, :state, :source, :application, :since])
    |> Map.put(:live, Map.get(live, service.name, []))
    |> Map.put(:urls, for(host <- service.hosts, do: url(host, port)))
  end

  @doc "The address of a host on the gateway's port."
  def url(host, 80), do: "http://#{host}/"
  def url(host, port), do: "http://#{host}:#{port}/"
end
