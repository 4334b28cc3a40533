defmodule ExServiceMeshRouter.Console.Index.Stream do
  @moduledoc false
  # Sends server-sent events to the page: the numbers every second, and changed parts of the page as HTML.

  alias ExServiceMeshRouter.Json
  alias ExServiceMeshRouter.Console.Index.{Live, Page, Report, Sampler}

  @headers [{"content-type", "text/event-stream"}, {"x-accel-buffering", "no"}]

  @doc "Returns the response to `GET /.mesh/live`."
  def answer(config), do: {200, @headers, {:stream, Stream.unfold(:start, &next(&1, config))}}

  # Runs in the process of the connection, which becomes the watcher.
  defp next(:start, config) do
    case Sampler.watch(config.name) do
      :ok -> {event("hello", "{}"), config |> Report.new(nil) |> parts()}
      # The browser reconnects after this many milliseconds.
      :full -> {"retry: 30000\n\n", :end}
    end
  end

  defp next(:end, _config), do: nil

  defp next(before, config) do
    receive do
      {:sample, now} ->
        report = Report.new(config, nil)
        parts = parts(report)

        changed =
          for {id, part} <- parts, before[id] != part, into: %{}, do: {id, html(id, report)}

        events = [
          if(changed == %{}, do: [], else: event("parts", Json.encode(changed))),
          event("sample", now.live |> Live.numbers() |> Json.encode())
        ]

        {events, parts}

      :drain ->
        nil
    after
      # The sampler is restarting; the browser reconnects.
      10_000 -> nil
    end
  end

  # The data of each part of the page, by the id of its element. Without the samples, which would change
  # the parts every second.
  defp parts(report) do
    services = Enum.map(report.services, &Map.delete(&1, :live))

    mesh =
      Map.update!(
        report.mesh,
        :nodes,
        &Enum.map(&1, fn node -> Map.delete(node, :connections) end)
      )

    Map.merge(if(mesh.state == :off, do: %{}, else: %{"mesh" => mesh}), %{
      "chips" =>
        {Enum.map(services, & &1.state), length(report.findings), report.gateway.handover},
      "service-list" => services,
      "finding-list" => report.findings,
      "history-list" => report.history,
      "error-list" => report.errors
    })
  end

  defp html(id, report), do: id |> render(report) |> IO.iodata_to_binary()

  defp render("chips", report), do: Page.chips(report)
  defp render("service-list", report), do: Page.services(report.services)
  defp render("mesh", report), do: Page.mesh(report.mesh)
  defp render("finding-list", report), do: Page.findings(report.findings)
  defp render("history-list", report), do: Live.history(report.history)
  defp render("error-list", report), do: Live.errors(report.errors)

  defp event(name, data), do: ["event: ", name, "\ndata: ", data, "\n\n"]
end
