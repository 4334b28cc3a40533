defmodule Demo.MixProject do
  use Mix.Project

  def project do
    [
      app: :demo,
      version: "0.1.0",
      elixir: "~> 1.14",
      deps: [{:ex_service_mesh_router, path: "../.."}]
    ]
  end

  def application do
    [mod: {Demo.Application, []}, extra_applications: [:logger, :crypto]]
  end
end
