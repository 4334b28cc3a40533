defmodule ExServiceMeshRouter.Console.Index.Text do
  @moduledoc false
  # Renders the report for terminals, without control characters.

  alias ExServiceMeshRouter.Console.Index.Words
  alias ExServiceMeshRouter.Console.Places
  alias ExServiceMeshRouter.Doctor.Finding

  @doc "Renders the report as lines of text."
  def render(report) do
    [unknown(report), services(report.services), mesh(report.mesh), findings(report.findings)]
    |> Enum.reject(&(&1 == []))
    |> Enum.intersperse("\n")
    |> IO.iodata_to_binary()
    |> String.replace(~r/[^\P{C}\n]/u, "?")
  end

  defp unknown(%{asked: nil} = report) do
    handover = if report.gateway.handover, do: ["; ", report.gateway.handover], else: []
    ["ex_service_mesh_router on ", Enum.join(report.gateway.addresses, ", "), handover, "\n"]
  end

  defp unknown(report) do
    hint = if report.nearest, do: "did you mean #{report.nearest}?\n", else: []
    ["unknown service: #{report.asked}\n", hint]
  end

  defp services([]), do: ["no services yet\n"]

  defp services(services) do
    rows =
      for service <- services do
        [
          service.name,
          Words.state(service.state),
          service.urls |> Enum.join("  ") |> or_dash(),
          service |> Places.text() |> or_dash(),
          Words.since(service[:since])
        ]
      end

    notes = for line <- Places.not_in_vm(services), do: [line, "\n"]
    [table([["SERVICE", "STATE", "OPEN", "LISTENS AT", "SINCE"] | rows]), notes]
  end

  defp or_dash(""), do: "-"
  defp or_dash(text), do: text

  @doc "Renders the line about the mesh, and one for each node that requests avoid."
  def mesh(mesh),
    do: ["mesh: ", mesh.line, "\n", for(line <- Places.avoided(mesh), do: ["  ", line, "\n"])]

  @doc "Rows, which are lists of texts, as lines with columns."
  def table(rows) do
    widths =
      rows |> Enum.zip_with(fn column -> column |> Enum.map(&String.length/1) |> Enum.max() end)

    for row <- rows do
      line = row |> Enum.zip_with(widths, &String.pad_trailing/2) |> Enum.join("  ")
      [String.trim_trailing(line), "\n"]
    end
  end

  defp findings([]), do: []

  defp findings(findings),
    do: findings |> Enum.map(&Finding.text/1) |> Enum.intersperse("\n")
end
