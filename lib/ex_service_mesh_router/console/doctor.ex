defmodule ExServiceMeshRouter.Doctor do
  alias ExServiceMeshRouter.Config.DoctorChecks
  alias ExServiceMeshRouter.Doctor.{Finding, Snapshot}

  @moduledoc """
  Names what people trip over, each with the line that mends it.

  It looks once a starting system has come to rest, and writes what it finds to the log; the index
  shows what is wrong now; and `mix mesh.doctor` asks, of a system that runs or of one that does not.
  Where nothing is wrong it says nothing.

  | check | finds |
  | --- | --- |
  #{for {name, meaning} <- DoctorChecks.all(), do: "| `#{name}` | #{meaning} |\n"}

  `config :ex_service_mesh_router, doctor: [except: [:local_names]]` leaves some of them out, and
  `doctor: false` all.
  """

  @doc "The names of all checks."
  @spec checks() :: [atom()]
  def checks, do: DoctorChecks.names()

  @doc "What is wrong with the system of a running gateway."
  @spec findings(module()) :: [Finding.t()]
  def findings(name \\ ExServiceMeshRouter), do: name |> Snapshot.running() |> examine()

  @doc false
  # Without a look at anything but the snapshot.
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
