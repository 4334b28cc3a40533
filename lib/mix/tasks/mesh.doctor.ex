defmodule Mix.Tasks.Mesh.Doctor do
  @shortdoc "Names what is wrong with the gateway's surroundings, and the line that mends it"

  @moduledoc """
  Looks at the configuration of all applications, and at the gateway if it runs, and names what
  people trip over, each with the exact line that fixes it.

      mix mesh.doctor
      mix mesh.doctor --json

  In an umbrella, run it in the root: only there can it see whether the gateway is started at all.
  For the configuration of another environment set `MIX_ENV`.

  It exits with status 1 if there are findings, and says nothing if there are none. What it looks
  for is listed in `ExServiceMeshRouter.Doctor`.

  ## Options

    * `--json` - prints `{"findings": [...]}`, with the fields of
      `ExServiceMeshRouter.Doctor.Finding`, and that also when there are none
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

    # What `mix phx.server` would do is asked, not what this task does.
    Application.put_env(:phoenix, :serve_endpoints, true)

    with {:ok, snapshot} <- Snapshot.configured(options, umbrella: Umbrella.gather()) do
      {:ok, snapshot |> Remote.ask() |> all()}
    end
  end

  # What a running system says of itself is better than what can be read from its configuration;
  # only whether it is the umbrella's own does it not know.
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
