defmodule ExServiceMeshRouter.Doctor.Finding do
  @moduledoc """
  One thing that is wrong.

    * `:check` - which check found it, one of `ExServiceMeshRouter.Doctor.checks/0`
    * `:problem` - what is wrong, in one sentence
    * `:why` - what comes of it
    * `:file` - where the fix belongs
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

  @doc "A few lines for logs and terminals."
  @spec text(t()) :: String.t()
  def text(finding) do
    fix = finding.fix |> String.split("\n") |> Enum.map_join("\n", &("    " <> &1))
    "#{finding.problem}\n  #{finding.why}\n  Fix, in #{finding.file}:\n#{fix}\n"
  end

  @doc false
  # From what the index says of it in JSON.
  def from_map(map), do: struct!(__MODULE__, for(key <- @fields, do: {key, map["#{key}"]}))
end
