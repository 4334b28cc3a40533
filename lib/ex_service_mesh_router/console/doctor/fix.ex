defmodule ExServiceMeshRouter.Doctor.Fix do
  @moduledoc false
  # Makes `file` and `fix` of a finding: the line to add, and the file in which it takes effect. Mix
  # merges keyword lists, so a line only has the changed settings.
  #
  # Mix reads config/runtime.exs last and in every environment, and Phoenix 1.8 sets the port of `http:`
  # there. Lines about `http:` and lines for production therefore belong there, below their environment.
  # Trap: `force_ssl` is read at compile time.

  @doc "Returns the fix for settings of an endpoint."
  def endpoint(%{application: application, endpoint: endpoint}, settings, snapshot),
    do: place("#{inspect(application)}, #{inspect(endpoint)}", settings, snapshot)

  @doc "Returns the fix for settings of the gateway."
  def gateway(settings, snapshot), do: place(":ex_service_mesh_router", settings, snapshot)

  @doc "Returns a host with this label beside another host."
  def sibling(label, host), do: label <> "." <> zone(host)

  # The parent domain of the host, or the host itself if the parent may belong to someone else.
  defp zone(host) do
    case String.split(host, ".") do
      [_label, top] when top in ~w(local localhost test internal) -> top
      [_label, _second, _third | _] -> host |> String.split(".", parts: 2) |> List.last()
      _ -> host
    end
  end

  @doc "Formats a dependency without the brackets around its options."
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

  # The generated lines would override a line before them.
  defp file(name), do: "config/#{name}.exs, at its end"

  defp bare(settings) do
    settings |> inspect(limit: :infinity, printable_limit: :infinity) |> String.slice(1..-2//1)
  end
end
