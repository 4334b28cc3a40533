defmodule ExServiceMeshRouter.Config.DoctorChecks do
  @moduledoc false
  # Lists the doctor's checks, so that `doctor: [except: ...]` can be validated. Must not know the
  # checks themselves, which are in the console.

  # In the order in which to fix what they find.
  @checks [
    {:root_dependency,
     "the gateway is a dependency of the umbrella's root only, so no application starts it"},
    {:late_start, "two endpoints with the same port start before the gateway"},
    {:port_taken, "another process has the gateway's port"},
    {:endpoint_port, "an endpoint is configured with the gateway's port"},
    {:server_missing,
     "the gateway or an endpoint of a release does not listen, because it lacks `server: true`"},
    {:endpoint_down, "an endpoint should listen and does not"},
    {:in_vm, "`in_vm` names an endpoint that needs its socket, or that does not exist"},
    {:http2, "`http2` names an endpoint that does not speak HTTP/2, or that does not exist"},
    {:public_listener, "other machines can reach an endpoint past the gateway, in production"},
    {:host_conflict, "two services have the same host"},
    {:mesh_down, "`mesh` is configured, and the gateway cannot use it"},
    {:mesh_unreachable, "the gateway of another node cannot be reached"},
    {:mesh_host_conflict, "different endpoints on different nodes have the same host"},
    {:mesh_settings,
     "an endpoint has another `secret_key_base` or `pubsub_server` on another node"},
    {:mesh_versions, "the nodes have different versions of the library"},
    {:mesh_checkouts,
     "in development, two directories of one machine form a cluster with the same endpoints"},
    {:mesh_localhost,
     "endpoints whose only hosts are below `localhost`, which other nodes do not get"},
    {:url_port, "links of an endpoint bypass the gateway"},
    {:url_host, "links of an endpoint lead to `localhost`, which several endpoints share"},
    {:check_origin, "an endpoint refuses the sockets of tenants or of development names"},
    {:force_ssl, "`force_ssl` without `rewrite_on` redirects every request endlessly"},
    {:trusted_proxies, "`trusted_proxies` lacks the TLS proxy in front of the gateway"},
    {:local_names, "macOS looks up a name below `.local` on the network first"}
  ]

  @doc "Returns `{name, meaning}` of all checks, in the order in which to fix what they find."
  def all, do: @checks

  def names, do: for({name, _meaning} <- @checks, do: name)
end
