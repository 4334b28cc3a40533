defmodule ExServiceMeshRouter.Doctor.Checks.LateStart do
  @moduledoc false
  # A running gateway resolves port conflicts of endpoints. If two start before it, the second one
  # fails, and the system does not start.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix}
  alias ExServiceMeshRouter.Endpoint.Settings

  def findings(
        %{running?: false, umbrella: %{dependents: [_ | _], before: before} = umbrella} = it
      ) do
    early =
      for application <- before,
          %{application: ^application, serves?: true} = endpoint <- it.endpoints,
          do: {endpoint, Settings.address(endpoint.settings[:http])}

    rivals =
      for {one, address} <- early,
          Enum.any?(early, fn {other, its} -> one != other and Settings.overlap?(address, its) end),
          do: one

    if rivals == [], do: [], else: [finding(rivals, umbrella)]
  end

  def findings(_snapshot), do: []

  defp finding([first | _] = rivals, umbrella) do
    names = Enum.map_join(rivals, " and ", &Endpoint.name/1)
    %{path: path} = Enum.find(umbrella.apps, &(&1.app == first.application))

    %{
      problem: "#{names} start before the gateway and are configured with the same port",
      why: "The second one finds its port in use, and the system does not start.",
      file: "#{path}/mix.exs, among the `deps`",
      fix: Fix.dependency(umbrella.declared)
    }
  end
end
