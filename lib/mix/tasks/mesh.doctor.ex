defmodule Mix.Tasks.Mesh.Doctor do
  @shortdoc "Finds configuration mistakes and prints the lines that fix them"

  @moduledoc """
  Checks the configuration of all applications, and the gateway if it runs, for common mistakes. Prints
  each with the line that fixes it.

      mix mesh.doctor
      mix mesh.doctor --json

  In an umbrella, run it in the root: only there it can check that an application starts the gateway.
  Set `MIX_ENV` to check the configuration of another environment.

  It exits with status 1 if there are findings and prints nothing if there are none.
  `ExServiceMeshRouter.Doctor` lists the checks.

  ## Options

    * `--json` - always prints `{"findings": [...]}`, with the fields of
      `ExServiceMeshRouter.Doctor.Finding`
  """

  use Mix.Task

  alias ExServiceMeshRouter.{ConfigError, Doctor, Json}
  alias ExServiceMeshRouter.Doctor.{Finding, Remote, Snapshot, Umbrella}

  @impl true
  def run(arguments) do
    {options, _rest} = OptionParser.parse!(arguments, strict: [json: :boolean])
    Mix.Task.run("app.config")

    case findings() do
      {:ok, findings} ->
        print(findings, options[:json])
        if findings != [], do: exit({:shutdown, 1})

      {:error, %ConfigError{} = error} ->
        Mix.raise(Exception.message(error))
    end
  end

  defp findings do
    options =
      Application.get_all_env(:ex_service_mesh_router) |> Keyword.delete(:included_applications)

    # The findings are about `mix phx.server`, not about this task.
    Application.put_env(:phoenix, :serve_endpoints, true)

    with {:ok, snapshot} <- Snapshot.configured(options, umbrella: Umbrella.gather()) do
      {:ok, snapshot |> Remote.ask() |> all()}
    end
  end

  # A running gateway knows more than its configuration, except for the umbrella's dependencies.
  defp all({:running, findings, snapshot}) do
    own = snapshot |> Doctor.examine() |> Enum.filter(&(&1.check == :root_dependency))
    own ++ findings
  end

  defp all({:configured, snapshot}), do: Doctor.examine(snapshot)

  defp print(findings, true),
    do: IO.puts(Json.encode(%{findings: Enum.map(findings, &Map.from_struct/1)}))

  defp print(findings, _text),
    do: findings |> Enum.map_intersperse("\n", &Finding.text/1) |> IO.write()
end
