defmodule ExServiceMeshRouter.Doctor.Finding do
  @moduledoc """
  One thing that is wrong.

    * `:check` - which check found it, as an atom
    * `:subject` - whom it is about: an endpoint, an application, a host, a port
    * `:problem` - what is wrong, in one sentence
    * `:why` - what comes of it
    * `:file` - where the fix belongs
    * `:fix` - the exact text to put there
  """

  @enforce_keys [:check, :subject, :problem, :why, :file, :fix]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          check: atom(),
          subject: String.t(),
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
end
