defmodule ExServiceMeshRouter.Doctor.Fix do
  @moduledoc false
  # The lines that mend, and the file in which they have an effect: `file` and `fix` of a finding.
  # Keyword lists of several such lines are merged by Mix, so a line says only what changes.
  #
  # Mix reads config/runtime.exs last and in every environment, and applications of Phoenix 1.8 set the
  # port of `http:` there. A line about `http:` therefore belongs there, and so does every line for
  # production, each with the environment it is meant for. `force_ssl` is read at compile time.

  @doc "Settings of an endpoint."
  def endpoint(%{application: application, endpoint: endpoint}, settings, snapshot),
    do: place("#{inspect(application)}, #{inspect(endpoint)}", settings, snapshot)

  @doc "Settings of the gateway."
  def gateway(settings, snapshot), do: place(":ex_service_mesh_router", settings, snapshot)

  @doc "A dependency as one writes it, without the brackets around its options."
  def dependency(dependency),
    do: dependency |> inspect() |> String.replace(~r/\[(.*)\]}\z/, "\\1}")

  defp place(whose, settings, %{development?: development?}) do
    line = "config #{whose}, #{bare(settings)}"

    cond do
      settings[:force_ssl] -> %{file: file("prod"), fix: line}
      settings[:http] != nil or !development? -> at_run_time(line, development?)
      true -> %{file: file("dev"), fix: line}
    end
  end

  defp at_run_time(line, development?) do
    environment = if development?, do: ":dev", else: ":prod"
    %{file: file("runtime"), fix: "if config_env() == #{environment} do\n  #{line}\nend"}
  end

  # A line before the generated ones would lose to them.
  defp file(name), do: "config/#{name}.exs, at its end"

  defp bare(settings) do
    settings |> inspect(limit: :infinity, printable_limit: :infinity) |> String.slice(1..-2//1)
  end
end
