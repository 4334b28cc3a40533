defmodule Example.MixProject do
  use Mix.Project

  def project do
    [
      apps_path: "apps",
      version: "0.1.0",
      start_permanent: Mix.env() == :prod,
      listeners: [Phoenix.CodeReloader],
      deps: deps(),
      releases: [
        example: [
          applications: [auth_web: :permanent, billing_web: :permanent, api: :permanent]
        ]
      ]
    ]
  end

  # Only what the umbrella's root itself needs. A dependency here is started by nobody: the gateway
  # stands in apps/shared.
  defp deps do
    [
      # for `mix format` of ~H
      {:phoenix_live_view, "~> 1.0"}
    ]
  end
end
