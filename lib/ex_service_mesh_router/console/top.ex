defmodule ExServiceMeshRouter.Console.Top do
  @moduledoc false
  # Formats the index's report, decoded from JSON, for a terminal: `mix mesh.top`.

  alias ExServiceMeshRouter.Console.Index.Words
  alias ExServiceMeshRouter.Console.Places

  @columns [
    "SERVICE",
    "STATE",
    "REQ/S",
    "5XX/S",
    "P50",
    "P99",
    "FLIGHT",
    "TUNNELS",
    "ALL",
    "NODES"
  ]
  @gap "  "
  # In a narrow terminal, names are shortened to this length, then columns are left out from the right.
  @shortest_name 16
  @errors 5
  @changes 5
  @nodes 5

  @doc """
  Returns the text, with or without colours, cut to the size: `{columns, rows}` or `:all`.
  """
  def render(report, size, colours?) do
    {width, height} = if size == :all, do: {:infinity, :infinity}, else: size

    mesh = mesh(report["mesh"])

    lines =
      [{:bright, "ex_service_mesh_router  #{summary(report)}"}] ++
        if(mesh.on?, do: [{nil, "mesh: #{mesh.line}"}], else: []) ++
        [{nil, ""}] ++
        services(report["services"], width, height, mesh) ++
        part("NODES", Places.avoided(mesh, @nodes), @nodes + 1, &{:yellow, &1}) ++
        part("LAST ERRORS", report["errors"], @errors, &error/1) ++
        part("ROUTES", report["history"], @changes, &{nil, "#{clock(&1)}  #{&1["line"]}"})

    for {style, text} <- first(lines, height),
        do: [text |> clean() |> cut(width) |> paint(style, colours?), "\n"]
  end

  defp summary(report) do
    up = Enum.count(report["services"], &(&1["state"] == "listening"))
    findings = length(report["findings"])

    "port #{report["gateway"]["port"]}  #{up} of #{length(report["services"])} up" <>
      if(findings > 0, do: "  findings: #{findings} (mix mesh.doctor)", else: "")
  end

  # A gateway of another version may have none.
  defp mesh(nil), do: %{on?: false, line: "off", nodes: []}

  defp mesh(mesh),
    do: %{on?: mesh["state"] != "off", line: mesh["line"], nodes: Places.read(mesh["nodes"])}

  # The others are for the summary, the mesh, the column names and the number of hidden services.
  defp services(services, width, height, mesh) do
    others = if mesh.on?, do: 5, else: 4
    shown = first(services, if(height == :infinity, do: height, else: max(height - others, 1)))
    table = shown |> Enum.map(&row/1) |> table(width, mesh)

    case length(services) - length(shown) do
      0 -> table
      more -> table ++ [{:faint, "and #{more} more"}]
    end
  end

  defp row(service) do
    live = service["live"]
    up? = service["state"] == "listening"
    places = %{upstreams: service["upstreams"] || [], peers: Places.read(service["peers"])}

    {unless(up?, do: :red),
     [
       clean(service["name"]),
       if(up?, do: "up", else: "down"),
       Words.number(live["rate"]),
       Words.number(live["errors"]),
       Words.time(live["p50"]),
       Words.time(live["p99"]),
       "#{live["in_flight"]}",
       "#{live["tunnels"]}",
       "#{live["requests"]}",
       Places.count(places)
     ]}
  end

  # The last column is for a mesh.
  defp table(rows, width, mesh) do
    rows = [{:faint, @columns} | rows]

    rows =
      if mesh.on?,
        do: rows,
        else: for({style, cells} <- rows, do: {style, Enum.drop(cells, -1)})

    [name | others] =
      rows
      |> Enum.map(&elem(&1, 1))
      |> Enum.zip_with(fn column -> column |> Enum.map(&String.length/1) |> Enum.max() end)

    {name, others} = fit(name, others, width)

    for {style, [service | cells]} <- rows do
      service = service |> cut(name) |> String.pad_trailing(name)
      {style, Enum.join([service | align(cells, others)], @gap)}
    end
  end

  # The state is a word, all other cells are numbers.
  defp align([state | numbers], [width | widths]),
    do: [
      String.pad_trailing(state, width) | Enum.zip_with(numbers, widths, &String.pad_leading/2)
    ]

  defp align(_cells, []), do: []

  defp fit(name, others, :infinity), do: {name, others}

  defp fit(name, others, width) do
    room = width - Enum.sum(others) - length(others) * String.length(@gap)

    cond do
      room >= name -> {name, others}
      room >= @shortest_name or others == [] -> {max(room, 1), others}
      true -> fit(name, Enum.drop(others, -1), width)
    end
  end

  defp part(_title, [], _most, _line), do: []

  defp part(title, items, most, line),
    do: [{nil, ""}, {:faint, title}] ++ (items |> Enum.take(most) |> Enum.map(line))

  defp error(error) do
    times = if error["count"] > 1, do: " (#{error["count"]} times)", else: ""
    {:yellow, "#{clock(error)}  #{error["service"]}: #{error["words"]}#{times}"}
  end

  defp clock(%{"time" => time}) do
    case DateTime.from_iso8601(time) do
      {:ok, time, _} -> Calendar.strftime(time, "%H:%M:%S")
      _ -> ""
    end
  end

  # Clients choose some names, and a terminal executes control characters.
  defp clean(text), do: String.replace(text, ~r/[^\P{C}]/u, "?")

  defp first(items, :infinity), do: items
  defp first(items, most), do: Enum.take(items, most)

  defp cut(text, :infinity), do: text

  defp cut(text, width) do
    if String.length(text) > width,
      do: String.slice(text, 0, max(width - 1, 0)) <> "…",
      else: text
  end

  defp paint(text, style, true) when style != nil,
    do: IO.ANSI.format([style, text], true)

  defp paint(text, _style, _colours?), do: text
end
