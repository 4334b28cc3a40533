import Config

# Read at every start, also in a release. Environment variables and their defaults:
#
#   PHX_SERVER=true     start the gateway and the endpoints of ROLE (not set)
#   ROLE                which endpoints serve on this node: web (auth and api), billing, or all (all)
#   PORT                the gateway's port, the only public one (4000)
#   PUBLIC_URL          the public URL without the service, such as https://example.com for
#                       https://auth.example.com (http://localhost:PORT)
#   SECRET_KEY_BASE     from `mix phx.gen.secret`, the same on all nodes (required in production)
#   TRUSTED_PROXIES     addresses of the proxies in front, separated by commas (none)
#   HANDOVER            where a new VM takes the port over from a running one (see examples/deploy), a path
#                       in a directory that only this user can enter (none)
#
# Several nodes, which need RELEASE_DISTRIBUTION=name, RELEASE_NODE and the same RELEASE_COOKIE:
#
#   DNS_CLUSTER_QUERY   a DNS name with the addresses of all nodes, such as a headless service (none)
#   NODES               or the names of the nodes, separated by commas (none)
#   MESH_PORT           the port for the gateways of other nodes, to open in a firewall (a free one)

serve? = System.get_env("PHX_SERVER") in ~w(true 1)
list = fn variable -> String.split(System.get_env(variable) || "", ",", trim: true) end

endpoints = [
  {:auth_web, AuthWeb.Endpoint, "auth", "web"},
  {:billing_web, BillingWeb.Endpoint, "billing", "billing"},
  {:api, Api.Endpoint, "api", "web"}
]

# Every node runs the same release with all applications: PubSub, LiveView uploads and jobs need their
# processes. An endpoint of another role has `server: false`, and the gateway sends its requests to a
# node where it serves.
role = System.get_env("ROLE") || "all"

if role not in ~w(all web billing),
  do: raise("environment variable ROLE is #{inspect(role)}; it must be web, billing or all")

for {app, endpoint, _name, of_role} <- endpoints do
  cond do
    role not in ["all", of_role] -> config app, endpoint, server: false
    serve? -> config app, endpoint, server: true
    true -> :ok
  end
end

# What connects the nodes, see Shared.Application.
dns_query = System.get_env("DNS_CLUSTER_QUERY")
nodes = list.("NODES")
config :shared, dns_cluster_query: dns_query, nodes: Enum.map(nodes, &String.to_atom/1)

if dns_query || nodes != [] do
  config :ex_service_mesh_router,
    mesh: [port: String.to_integer(System.get_env("MESH_PORT") || "0")]
end

if config_env() == :prod do
  secret_key_base =
    System.get_env("SECRET_KEY_BASE") ||
      raise "environment variable SECRET_KEY_BASE is missing; generate one with `mix phx.gen.secret`"

  port = String.to_integer(System.get_env("PORT") || "4000")
  public = URI.parse(System.get_env("PUBLIC_URL") || "http://localhost:#{port}")

  # `serve? || nil`: without PHX_SERVER, `mix phx.server` decides, as for the endpoints.
  config :ex_service_mesh_router,
    server: serve? || nil,
    ip: :any,
    port: port,
    trusted_proxies: list.("TRUSTED_PROXIES")

  if path = System.get_env("HANDOVER"),
    do: config(:ex_service_mesh_router, handover: [path: path, stop: true])

  # No `http:`: the endpoints listen on private Unix sockets, which only the gateway can reach.
  for {app, endpoint, name, _role} <- endpoints do
    host = "#{name}.#{public.host}"

    config app, endpoint,
      url: [scheme: public.scheme, host: host, port: public.port],
      # Allow the origins of the service and of its tenants.
      check_origin: ["//#{host}", "//*.#{host}"],
      secret_key_base: secret_key_base
  end
end
