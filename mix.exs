defmodule ExServiceMeshRouter.MixProject do
  use Mix.Project

  @version "0.1.0"

  def project do
    [
      app: :ex_service_mesh_router,
      version: @version,
      elixir: "~> 1.14",
      # The NIF is built last, because the task that builds it is in lib/. The gateway loads it when it
      # starts to listen.
      compilers: Mix.compilers() ++ [:mesh_nif],
      elixirc_paths: elixirc_paths(Mix.env()),
      start_permanent: Mix.env() == :prod,
      deps: [],
      description: description(),
      package: package(),
      docs: docs()
    ]
  end

  def application do
    [
      mod: {ExServiceMeshRouter.Application, []},
      # Optional telemetry starts before the gateway. Not in extra_applications: Elixir 1.20 warns about
      # optional applications there.
      applications: [:crypto, :logger, telemetry: :optional]
    ]
  end

  # The demo is compiled for its tests and for .iex.exs. As a dependency, the project is compiled in
  # :prod.
  defp elixirc_paths(:test), do: ["lib", "test/support", "examples/demo/lib"]
  defp elixirc_paths(:dev), do: ["lib", "examples/demo/lib"]
  defp elixirc_paths(_), do: ["lib"]

  defp description do
    "One port in front of every Phoenix endpoint of an umbrella: endpoints are discovered and " <>
      "routed by host name. The data plane is Rust (tokio), in a NIF."
  end

  defp package do
    [
      licenses: ["Apache-2.0"],
      links: %{},
      # All files that a build reads: the sources of both languages, the lock file, and the libraries of
      # scripts/precompile. test/system/package_test.exs checks the list.
      files: ~w(lib priv/grafana priv/native/*-*/mesh_nif.* native/mesh_*/src
                native/mesh_*/Cargo.toml native/mesh_*/build.rs Cargo.toml Cargo.lock
                .cargo/config.toml mix.exs .formatter.exs guides README.md ARCHITECTURE.md
                CONTRIBUTING.md CHANGELOG.md LICENSE)
    ]
  end

  # For ExDoc.
  defp docs do
    [
      main: "readme",
      filter_modules: ~r/^Elixir\.(ExServiceMeshRouter|Router|Mix)\b/,
      source_ref: "v#{@version}",
      extras: [
        "README.md",
        "guides/getting-started.md",
        "guides/tenants.md",
        "guides/websockets-and-liveview.md",
        "guides/grpc.md",
        "guides/deployment.md",
        "guides/deploying-on-one-server.md",
        "guides/several-nodes.md",
        "guides/observability.md",
        "guides/migrating.md",
        "guides/troubleshooting.md",
        "guides/comparison.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        {:LICENSE, title: "License"}
      ],
      groups_for_extras: [Guides: ~r"^guides/"],
      groups_for_modules: [
        Gateway: [
          ExServiceMeshRouter,
          ExServiceMeshRouter.Config,
          ExServiceMeshRouter.Supervisor,
          ExServiceMeshRouter.Explanation,
          ExServiceMeshRouter.DiscoverableEndpoint
        ],
        "In applications": [
          ExServiceMeshRouter.RemoteIp,
          ExServiceMeshRouter.TenantPlug,
          ExServiceMeshRouter.TenantHook,
          Router.Shared.TenantResolver,
          ExServiceMeshRouter.Test
        ],
        "Seeing and asking": [
          ExServiceMeshRouter.Telemetry,
          ExServiceMeshRouter.Prometheus,
          ExServiceMeshRouter.AccessLog,
          ExServiceMeshRouter.LiveDashboard,
          ExServiceMeshRouter.Doctor,
          ExServiceMeshRouter.Doctor.Finding
        ],
        Errors: ~r"Error$"
      ],
      # ARCHITECTURE.md names it; applications do not call it.
      skip_code_autolink_to: ["ExServiceMeshRouter.Native"]
    ]
  end
end
