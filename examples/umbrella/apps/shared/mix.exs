defmodule Shared.MixProject do
  use Mix.Project

  def project do
    [
      app: :shared,
      version: "0.1.0",
      build_path: "../../_build",
      config_path: "../../config/config.exs",
      deps_path: "../../deps",
      lockfile: "../../mix.lock",
      elixir: "~> 1.15",
      start_permanent: Mix.env() == :prod,
      deps: deps()
    ]
  end

  def application do
    [mod: {Shared.Application, []}, extra_applications: [:logger]]
  end

  defp deps do
    [
      # The gateway. All other applications depend on this one, so it starts first.
      # Outside this repository:
      #   {:ex_service_mesh_router, git: "...", tag: "v0.1.0"}
      #   {:ex_service_mesh_router, "~> 0.1"}
      {:ex_service_mesh_router, path: "../../../.."},
      {:phoenix, "~> 1.8"},
      {:phoenix_html, "~> 4.1"},
      {:phoenix_live_view, "~> 1.0"},
      {:phoenix_pubsub, "~> 2.1"},
      {:dns_cluster, "~> 0.1"},
      {:jason, "~> 1.2"}
    ]
  end
end
