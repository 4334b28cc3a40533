defmodule ExServiceMeshRouter.Top do
  @moduledoc false
  # The index's report, as decoded from its JSON, for a terminal: `mix mesh.top`.

  alias ExServiceMeshRouter.Index.Live

  @columns ["SERVICE", "STATE", "REQ/S", "5XX/S", "P50", "P99", "IN FLIGHT", "TUNNELS", "IN ALL"]
  @errors 5
  @changes 5

  @doc "The text, each line at most so wide, with or without colours."
  def render(report, width, colours?) do
    rows = Enum.map(report["services"], &row/1)

    lines =
      [{:bright, "ex_service_mesh_router  #{summary(report)}"}, {nil, ""}] ++
        table(rows) ++
        part("LAST ERRORS", report["errors"], @errors, &error/1) ++
        part("ROUTES", report["history"], @changes, &{nil, "#{clock(&1)}  #{&1["line"]}"})

    for {style, text} <- lines,
        do: [text |> clean() |> cut(width) |> paint(style, colours?), "\n"]
  end

  @doc "Control sequences that show the text in place of what was there, without a flicker."
  def screen(text) do
    lines = text |> IO.iodata_to_binary() |> String.replace("\n", "\e[K\r\n")
    ["\e[H", lines, "\e[J"]
  end

  defp summary(report) do
    up = Enum.count(report["services"], &(&1["state"] == "listening"))
    findings = length(report["findings"])

    "port #{report["gateway"]["port"]}  #{up} of #{length(report["services"])} up" <>
      if(findings > 0, do: "  #{findings} to mend: mix mesh.doctor", else: "")
  end

  defp row(service) do
    live = service["live"]
    up? = service["state"] == "listening"

    {unless(up?, do: :red),
     [
       service["name"],
       if(up?, do: "up", else: "down"),
       Live.number(live["rate"]),
       Live.number(live["errors"]),
       Live.time(live["p50"]),
       Live.time(live["p99"]),
       "#{live["in_flight"]}",
       "#{live["tunnels"]}",
       "#{live["requests"]}"
     ]}
  end

  defp table(rows) do
    rows = [{:faint, @columns} | rows]

    widths =
      rows
      |> Enum.map(&elem(&1, 1))
      |> Enum.zip_with(fn column -> column |> Enum.map(&String.length/1) |> Enum.max() end)

    for {style, [name, state | numbers]} <- rows do
      [name_width, state_width | number_widths] = widths

      cells =
        [String.pad_trailing(name, name_width), String.pad_trailing(state, state_width)] ++
          Enum.zip_with(numbers, number_widths, &String.pad_leading/2)

      {style, Enum.join(cells, "  ")}
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

  # Names come from strangers, and a terminal obeys what it is sent.
  defp clean(text), do: String.replace(text, ~r/[^\P{C}]/u, "?")

  defp cut(text, :infinity), do: text
  defp cut(text, width), do: String.slice(text, 0, width)

  defp paint(text, style, true) when style != nil,
    do: IO.ANSI.format([style, text], true)

  defp paint(text, _style, _colours?), do: text
end
