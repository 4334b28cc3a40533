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

  # Only tools of the umbrella's root. Mix does not start these dependencies, so the gateway is in
  # apps/shared.
  defp deps do
    [
      # for `mix format` of ~H
      {:phoenix_live_view, "~> 1.0"}
    ]
  end
end
