defmodule ExServiceMeshRouter.Console.Index.Page do
  @moduledoc false
  # Renders the report as HTML. Must escape all values that are not in this file.

  import ExServiceMeshRouter.Console.Index.Html, only: [escape: 1]

  alias ExServiceMeshRouter.Console.Index.{Live, Report, Words}
  alias ExServiceMeshRouter.Console.Places
  alias ExServiceMeshRouter.Registry.PeerState

  @logo Path.join(__DIR__, "assets/icon.svg")
  @external_resource @logo
  # Without the style of the icon, which is for the tab; the page's policy forbids inline styles.
  @mark @logo
        |> File.read!()
        |> String.trim()
        |> String.replace(~r|<style>.*</style>|, "")
        |> String.replace("<svg ", ~s|<svg class="mark" aria-hidden="true" |)

  @doc "Renders the page as iodata."
  def render(report) do
    [
      ~s|<!doctype html>\n<html lang="en"><head><meta charset="utf-8">|,
      ~s|<meta name="viewport" content="width=device-width, initial-scale=1">|,
      ~s|<meta name="color-scheme" content="light dark"><title>|,
      title(report),
      ~s|</title><link rel="icon" href="/.mesh/icon.svg"><link rel="stylesheet" href="/.mesh/page.css">|,
      ~s|<script src="/.mesh/page.js" defer></script></head><body>|,
      ~s|<a class="skip" href="#services">Skip to the services</a>|,
      header(report),
      "<main>",
      unknown(report),
      ~s|<section aria-labelledby="services"><h2 id="services">Services</h2><div id="service-list">|,
      services(report.services),
      "</div></section>",
      nodes(report.mesh),
      ~s|<section aria-labelledby="findings"><h2 id="findings">Doctor</h2><div id="finding-list">|,
      findings(report.findings),
      ~s|</div></section><div class="logs"><section aria-labelledby="errors"><h2 id="errors">Last errors</h2>|,
      ~s|<div class="card" id="error-list" tabindex="0" role="region" aria-labelledby="errors">|,
      Live.errors(report.errors),
      ~s|</div></section><section aria-labelledby="history"><h2 id="history">Routes</h2><div class="card" id="history-list" tabindex="0" role="region" aria-labelledby="history">|,
      Live.history(report.history),
      "</div></section></div></main>",
      footer(report),
      "</body></html>\n"
    ]
  end

  defp title(%{asked: nil}), do: "ex_service_mesh_router"
  defp title(%{asked: host}), do: ["No service for ", escape(host)]

  defp header(report) do
    [
      "<header>",
      @mark,
      ~s|<div class="name"><h1>ex_service_mesh_router</h1><p>|,
      "listening on #{escape(Enum.join(report.gateway.addresses, ", "))}, ",
      Words.count(report.gateway.workers, "worker"),
      if(report.mesh.state == :off, do: ", mesh off", else: ""),
      "</p></div>",
      ~s|<ul class="chips" id="chips">|,
      chips(report),
      ~s|</ul><span class="chip" id="connection" role="status" hidden></span></header>|
    ]
  end

  @doc "Renders the summary at the top."
  def chips(report) do
    up = Enum.count(report.services, &(&1.state == :listening))
    down = length(report.services) - up
    findings = length(report.findings)

    [
      chip(if(up > 0, do: "good", else: ""), "#{up} up"),
      if(down > 0, do: chip("bad", "#{down} down"), else: []),
      if(findings > 0, do: chip("warn", Words.count(findings, "finding")), else: []),
      if(report.gateway.handover, do: chip("warn", escape(report.gateway.handover)), else: [])
    ]
  end

  defp chip(class, text), do: ~s|<li class="chip #{class}">#{text}</li>|

  defp unknown(%{asked: nil}), do: []

  defp unknown(report) do
    [
      ~s|<div class="card unknown" role="status"><p class="what">No service answers for <code>|,
      escape(report.asked),
      "</code></p>",
      hint(report),
      "</div>"
    ]
  end

  defp hint(%{nearest: nil}) do
    ~s|<p class="hint">All services are below. A new endpoint appears when it has started.</p>|
  end

  defp hint(%{nearest: host} = report) do
    url = Report.url(host, report.gateway.port)
    ~s|<p class="hint">Did you mean <a href="#{escape(url)}">#{escape(host)}</a>?</p>|
  end

  @doc "Renders the table of the services."
  def services([]) do
    ~s|<div class="card empty"><p><strong>No services yet.</strong></p>| <>
      ~s|<p>An endpoint appears here when it has started.</p></div>|
  end

  def services(services) do
    [
      ~s|<div class="card"><table><thead><tr><th scope="col">Service</th><th scope="col">State</th>|,
      ~s|<th scope="col">Open</th><th scope="col">Listens at</th></tr></thead><tbody>|,
      Enum.map(services, &row/1),
      "</tbody></table></div>"
    ]
  end

  defp row(service) do
    state = Words.state(service.state)

    [
      ~s|<tr><td class="who">#{escape(service.name)}|,
      ~s|<span class="more">#{escape(Words.source(service))}</span></td>|,
      ~s|<td class="is"><span class="state #{state}">#{state}</span>|,
      since(service[:since]),
      ~s|</td><td data-label="Open">|,
      list(Enum.zip(service.urls, service.hosts), &link/1),
      ~s|</td><td data-label="Listens at">|,
      places(Places.list(service)),
      ~s|</td></tr><tr class="moving"><td colspan="4">|,
      Live.traffic(service.name, service.live),
      "</td></tr>"
    ]
  end

  defp since(nil), do: []

  defp since(time) do
    iso = time |> DateTime.truncate(:second) |> DateTime.to_iso8601()

    ~s|<span class="more">for <time datetime="#{iso}" title="since #{iso}">#{Words.since(time)}</time></span>|
  end

  defp link({url, host}), do: ~s|<a href="#{escape(url)}">#{escape(host)}</a>|

  defp list([], _item), do: ~s|<span class="none">nowhere</span>|
  defp list(items, item), do: ["<ul>", Enum.map(items, &["<li>", item.(&1), "</li>"]), "</ul>"]

  defp places({[], 0}), do: list([], nil)

  defp places({places, more}) do
    more = if more > 0, do: [{"and #{more} more", :more}], else: []
    list(places ++ more, &place/1)
  end

  defp place({text, :more}), do: ~s|<span class="more">#{text}</span>|
  defp place({text, nil}), do: "<code>#{escape(text)}</code>"

  defp place({text, state}),
    do: ~s|<code>#{escape(text)}</code> <span class="avoided">#{escape(state)}</span>|

  # Without a mesh there is no section, and it cannot appear later.
  defp nodes(%{state: :off}), do: []

  defp nodes(mesh) do
    [
      ~s|<section aria-labelledby="nodes"><h2 id="nodes">Nodes</h2><div class="card nodes" id="mesh">|,
      mesh(mesh),
      "</div></section>"
    ]
  end

  @doc "Renders the state of the mesh."
  def mesh(mesh) do
    {shown, more} = Places.nodes(mesh)

    [
      "<p>#{escape(mesh.line)}</p>",
      if(shown == [], do: [], else: [~s|<ul class="log">|, Enum.map(shown, &peer/1), "</ul>"]),
      if(more == 0, do: [], else: ~s|<p class="quiet">and #{more} more</p>|)
    ]
  end

  defp peer(node) do
    class = if PeerState.used?(node), do: "up", else: "avoided"

    [
      ~s|<li><span class="state #{class}">#{escape(node.node)}</span> <span>|,
      escape(Enum.join([PeerState.words(node.state) | about(node)], ", ")),
      "</span></li>"
    ]
  end

  defp about(node) do
    if why = PeerState.why(node),
      do: [why],
      else: List.wrap(node.address) ++ [Words.count(node.endpoints, "endpoint")]
  end

  @doc "Renders the doctor's findings."
  def findings([]), do: ~s|<div class="card well">No findings.</div>|
  def findings(findings), do: Enum.map(findings, &finding/1)

  defp finding(finding) do
    [
      ~s|<section class="card finding"><h3>#{escape(finding.problem)}</h3>|,
      ~s|<p>#{escape(finding.why)}</p>|,
      ~s|<figure class="fix"><figcaption>Fix, in <code>#{escape(finding.file)}</code></figcaption>|,
      ~s|<button class="copy" type="button" hidden>Copy</button>|,
      ~s|<pre tabindex="0"><code>#{escape(finding.fix)}</code></pre></figure></section>|
    ]
  end

  defp footer(report) do
    url = Report.url("localhost", report.gateway.port)

    [
      ~s|<footer><p>In a terminal: <code>curl #{escape(url)}</code>, <code>mix mesh.routes</code>, |,
      ~s|<code>mix mesh.doctor</code>, <code>mix mesh.top</code>. For programs: the same address with |,
      ~s|<code>Accept: application/json</code>.</p></footer>|
    ]
  end
end
