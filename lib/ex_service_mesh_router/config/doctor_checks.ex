defmodule ExServiceMeshRouter.Config.DoctorChecks do
  @moduledoc false
  # The names of the doctor's checks and what they find. `doctor: [except: ...]` is checked against
  # them. The checks themselves are in the console, and must not be known here.

  # In the order in which one would mend them.
  @checks [
    {:root_dependency, "a dependency of the umbrella's root only, which nobody starts"},
    {:late_start, "endpoints with one port that start before the gateway, and cannot start both"},
    {:port_taken, "the gateway's port in use, and by whom"},
    {:endpoint_port, "an endpoint that is told to listen on the gateway's port"},
    {:server_missing,
     "a release in which the gateway, or an endpoint, does not listen for want of `server: true`"},
    {:endpoint_down, "an endpoint that should listen and does not"},
    {:public_listener, "in production an endpoint that other machines reach past the gateway"},
    {:host_conflict, "two services with one host"},
    {:url_port, "an endpoint whose generated links bypass the gateway"},
    {:url_host,
     "an endpoint whose generated links lead to `localhost`, which it shares with others"},
    {:check_origin, "sockets that an endpoint will refuse, of tenants and of development names"},
    {:force_ssl, "`force_ssl` without `rewrite_on`, which redirects for ever"},
    {:trusted_proxies, "a TLS proxy in front that nobody trusts"},
    {:local_names, "names below `.local` on macOS, which asks the network for them first"}
  ]

  @doc "`{name, meaning}` of each, in the order in which one would mend what they find."
  def all, do: @checks

  def names, do: for({name, _meaning} <- @checks, do: name)
end
