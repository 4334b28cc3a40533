defmodule ExServiceMeshRouter.Doctor do
  alias ExServiceMeshRouter.Doctor.{Checks, Finding, Snapshot}

  # In the order in which one would mend them.
  @checks [
    {:root_dependency, Checks.RootDependency,
     "a dependency of the umbrella's root only, which nobody starts"},
    {:late_start, Checks.LateStart,
     "endpoints with one port that start before the gateway, and cannot start both"},
    {:port_taken, Checks.PortTaken, "the gateway's port in use, and by whom"},
    {:endpoint_port, Checks.EndpointPort,
     "an endpoint that is told to listen on the gateway's port"},
    {:server_missing, Checks.ServerMissing,
     "a release in which the gateway, or an endpoint, does not listen for want of `server: true`"},
    {:endpoint_down, Checks.EndpointDown, "an endpoint that should listen and does not"},
    {:public_listener, Checks.PublicListener,
     "in production an endpoint that other machines reach past the gateway"},
    {:host_conflict, Checks.HostConflict, "two services with one host"},
    {:url_port, Checks.UrlPort, "an endpoint whose generated links bypass the gateway"},
    {:url_host, Checks.UrlHost,
     "an endpoint whose generated links lead to `localhost`, which it shares with others"},
    {:check_origin, Checks.CheckOrigin,
     "sockets that an endpoint will refuse, of tenants and of development names"},
    {:force_ssl, Checks.ForceSsl, "`force_ssl` without `rewrite_on`, which redirects for ever"},
    {:trusted_proxies, Checks.TrustedProxies, "a TLS proxy in front that nobody trusts"},
    {:local_names, Checks.LocalNames,
     "names below `.local` on macOS, which asks the network for them first"}
  ]

  @moduledoc """
  Names what people trip over, each with the line that mends it.

  It looks once a starting system has come to rest, and writes what it finds to the log; the index
  shows what is wrong now; and `mix mesh.doctor` asks, of a system that runs or of one that does not.
  Where nothing is wrong it says nothing.

  | check | finds |
  | --- | --- |
  #{for {name, _module, meaning} <- @checks, do: "| `#{name}` | #{meaning} |\n"}

  `config :ex_service_mesh_router, doctor: [except: [:local_names]]` leaves some of them out, and
  `doctor: false` all.
  """

  @doc "The names of all checks."
  @spec checks() :: [atom()]
  def checks, do: for({name, _module, _meaning} <- @checks, do: name)

  @doc "What is wrong with the system of a running gateway."
  @spec findings(module()) :: [Finding.t()]
  def findings(name \\ ExServiceMeshRouter), do: name |> Snapshot.running() |> examine()

  @doc false
  # Without a look at anything but the snapshot.
  def examine(nil), do: []

  def examine(snapshot) do
    for {name, check, _meaning} <- @checks,
        name in snapshot.config.doctor,
        finding <- check.findings(snapshot) do
      struct!(Finding, Map.put(finding, :check, name))
    end
  end
end
