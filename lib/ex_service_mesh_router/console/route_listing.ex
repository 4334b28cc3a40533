defmodule ExServiceMeshRouter.Console.RouteListing do
  @moduledoc false
  # Lists the routes for `mix mesh.routes`: those of a running gateway, in this VM or on this machine,
  # otherwise those of the configuration.

  alias ExServiceMeshRouter.Config.Upstream
  alias ExServiceMeshRouter.Console.Index.Text
  alias ExServiceMeshRouter.Console.Places
  alias ExServiceMeshRouter.Doctor.{Endpoint, Private, Remote, Snapshot}
  alias ExServiceMeshRouter.Endpoint.DevNames
  alias ExServiceMeshRouter.Listeners.Policy
  alias ExServiceMeshRouter.Mesh
  alias ExServiceMeshRouter.Registry.Table

  # Each route has: host, service, application, upstreams, peers, in_vm, state and since (`nil` without a
  # gateway), source, and whether the host is derived from the name of the application. `mesh` is its
  # status, or `nil` without a gateway.
  defstruct [:running?, :port, :routes, :mesh]

  def new(options) do
    with {:ok, snapshot} <- Snapshot.configured(options) do
      config = snapshot.config

      {:ok,
       here(config.name, snapshot) || there(config, snapshot) || configured(config, snapshot)}
    end
  end

  defp here(name, snapshot) do
    if port = ExServiceMeshRouter.port(name),
      do: live(port, ExServiceMeshRouter.services(name), Mesh.status(name), snapshot)
  end

  defp there(config, snapshot) do
    with {:ok, report} <- Remote.report(config) do
      services =
        for service <- report["services"] do
          keys = ~w(name hosts upstreams in_vm state source application since)
          service = Map.put(service, "peers", Places.read(service["peers"]))
          for key <- ["peers" | keys], into: %{}, do: {String.to_atom(key), service[key]}
        end

      live(report["gateway"]["port"], services, mesh(report["mesh"]), snapshot)
    else
      :error -> nil
    end
  end

  # A gateway of another version may have none.
  defp mesh(nil), do: nil

  defp mesh(mesh) do
    mesh = Map.take(mesh, ~w(state node addresses problem nodes line))
    mesh = Map.new(mesh, fn {key, value} -> {String.to_atom(key), value} end)
    %{mesh | nodes: Places.read(mesh.nodes)}
  end

  defp live(port, services, mesh, snapshot) do
    derived = derived(snapshot)

    routes =
      for service <- services, host <- service.hosts do
        service
        |> Map.take([:application, :upstreams, :peers, :in_vm, :state, :since, :source])
        |> Map.merge(%{host: host, service: service.name, derived: host in derived})
      end

    %__MODULE__{running?: true, port: port, routes: sort(routes), mesh: mesh}
  end

  defp configured(config, snapshot) do
    table =
      snapshot.services
      |> Map.new(&{&1.key, &1})
      |> Table.build(%{}, DevNames.shared(config.dev_domain))

    derived = derived(snapshot)

    routes =
      for %{name: name, hosts: hosts} <- table.rows,
          service = Enum.find(snapshot.services, &(&1.name == name)),
          host <- hosts do
        %{
          host: host,
          service: name,
          application: service.application,
          upstreams: upstreams(service, snapshot),
          peers: [],
          in_vm: nil,
          state: nil,
          since: nil,
          source: service.source,
          derived: host in derived
        }
      end

    %__MODULE__{running?: false, port: config.port, routes: sort(routes)}
  end

  defp derived(snapshot) do
    for service <- snapshot.services, host <- service.derived, do: host
  end

  # Where an endpoint will listen, as far as its settings tell.
  defp upstreams(%{source: :endpoint} = service, snapshot) do
    it = Enum.find(snapshot.endpoints, &(&1.endpoint == service.endpoint))
    mode = snapshot.config.private_listeners
    http = it.settings[:http]
    http2? = it.endpoint in snapshot.config.http2
    private = if http2?, do: "a private listener, over HTTP/2", else: "a private listener"

    cond do
      Policy.private?(mode, it.endpoint, it.serves? == true, http) -> [private]
      it.serves? != true -> ["none, it does not serve"]
      Private.taken?(it, snapshot) -> [private]
      true -> [it |> Endpoint.listener() |> bound(http2?)]
    end
  end

  defp upstreams(%{key: {:grpc, _server}}, _snapshot), do: ["where its server listens"]
  defp upstreams(service, _snapshot), do: Enum.map(service.upstreams, &Upstream.to_string/1)

  defp bound(nil, _http2?), do: "none, it has no http:"
  defp bound(:unknown, _http2?), do: "not known before it starts"
  defp bound({:tcp, _ip, 0}, false), do: "a port of its own choice"
  defp bound({:tcp, _ip, 0}, true), do: "a port of its own choice, over HTTP/2"
  defp bound({:tcp, ip, port}, http2?), do: written({ip, port}, http2?)
  defp bound({:unix, path}, http2?), do: written({:local, path}, http2?)

  defp written(address, http2?) do
    {:ok, upstream} = Upstream.from_bound(address)
    Upstream.to_string(if http2?, do: Upstream.http2(upstream), else: upstream)
  end

  defp sort(routes), do: Enum.sort_by(routes, &{&1.service, &1.derived, &1.host})

  @doc "Formats the listing."
  def text(%{routes: []} = listing), do: [headline(listing), "\n", mesh_lines(listing.mesh)]

  def text(listing) do
    rows =
      for route <- listing.routes do
        host = if route.derived, do: route.host <> " *", else: route.host
        [host, route.service, Places.text(route), state(route)]
      end

    notes =
      if Enum.any?(listing.routes, & &1.derived),
        do: "\n* from the name of the application (dev_domain)\n",
        else: ""

    table = Text.table([["HOST", "SERVICE", "UPSTREAM", "STATE"] | rows])
    [headline(listing), "\n\n", table, notes, not_in_vm(listing.routes), mesh_lines(listing.mesh)]
  end

  defp not_in_vm(routes) do
    services = for route <- routes, do: %{name: route.service, in_vm: route.in_vm}
    for line <- Places.not_in_vm(services), do: ["\n", line, "\n"]
  end

  defp mesh_lines(nil), do: []
  defp mesh_lines(mesh), do: ["\n", Text.mesh(mesh)]

  defp headline(%{running?: true, port: port}),
    do: "The gateway runs on port #{port}. Its routes:"

  defp headline(%{port: port, routes: []}),
    do:
      "No gateway answers on port #{port}, and the configuration names no endpoint and no service."

  defp headline(%{port: port}),
    do: "No gateway with an index answers on port #{port}. The routes of the configuration:"

  defp state(%{state: nil}), do: "configured"
  defp state(%{state: state, since: since}), do: "#{words(state)} since #{clock(since)}"

  defp words(state), do: state |> to_string() |> String.replace("_", " ")

  defp clock(%DateTime{} = since),
    do: since |> DateTime.truncate(:second) |> DateTime.to_iso8601()

  defp clock(text), do: String.replace(text, ~r/\.\d+/, "")
end
