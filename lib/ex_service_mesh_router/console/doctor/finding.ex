defmodule ExServiceMeshRouter.Doctor.Finding do
  @moduledoc """
  Describes one mistake in the configuration and its fix.

    * `:check` - the name of the check, see `ExServiceMeshRouter.Doctor.checks/0`
    * `:problem` - the mistake, in one sentence
    * `:why` - its consequence
    * `:file` - the file of the fix
    * `:fix` - the exact text to put there
  """

  @fields [:check, :problem, :why, :file, :fix]
  @enforce_keys @fields
  defstruct @fields

  @type t :: %__MODULE__{
          check: atom(),
          problem: String.t(),
          why: String.t(),
          file: String.t(),
          fix: String.t()
        }

  @doc "Formats a finding for logs and terminals."
  @spec text(t()) :: String.t()
  def text(finding) do
    fix = finding.fix |> String.split("\n") |> Enum.map_join("\n", &("    " <> &1))
    "#{finding.problem}\n  #{finding.why}\n  Fix, in #{finding.file}:\n#{fix}\n"
  end

  @doc false
  # From the JSON of the index.
  def from_map(map), do: struct!(__MODULE__, for(key <- @fields, do: {key, map["#{key}"]}))
end
