defmodule ExServiceMeshRouter.Doctor do
  alias ExServiceMeshRouter.Config.DoctorChecks
  alias ExServiceMeshRouter.Doctor.{Finding, Snapshot}

  @moduledoc """
  Finds common configuration mistakes, each with the line that fixes it.

  After the start of a system, the doctor logs its findings once. The index shows the current findings.
  `mix mesh.doctor` prints those of a running system or of a configuration.

  | check | finds |
  | --- | --- |
  #{for {name, meaning} <- DoctorChecks.all(), do: "| `#{name}` | #{meaning} |\n"}

  `config :ex_service_mesh_router, doctor: [except: [:local_names]]` turns single checks off, and
  `doctor: false` all.
  """

  @doc "Returns the names of all checks."
  @spec checks() :: [atom()]
  def checks, do: DoctorChecks.names()

  @doc "Returns the findings about the system of a running gateway; `[]` if it does not run."
  @spec findings(module()) :: [Finding.t()]
  def findings(name \\ ExServiceMeshRouter), do: name |> Snapshot.running() |> examine()

  @doc false
  # Must depend on the snapshot only.
  def examine(nil), do: []

  def examine(snapshot) do
    for name <- DoctorChecks.names(),
        name in snapshot.config.doctor,
        finding <- module(name).findings(snapshot) do
      struct!(Finding, Map.put(finding, :check, name))
    end
  end

  # The module of `:url_port` is `Doctor.Checks.UrlPort`.
  defp module(name), do: Module.concat(__MODULE__.Checks, Macro.camelize(Atom.to_string(name)))
end
