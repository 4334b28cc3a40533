"use strict";

// The clipboard needs a secure context; names below localhost have one.
function offerCopies(root) {
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("button.copy")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  await navigator.clipboard.writeText(button.parentElement.querySelector("pre").textContent);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});

// Shows times in the reader's time zone.
function localTimes(root) {
  for (const time of root.querySelectorAll("time.clock")) {
    const at = new Date(time.dateTime);
    time.title = at.toLocaleString();
    time.textContent = at.toLocaleTimeString([], { hour12: false });
  }
}

function ages() {
  for (const time of document.querySelectorAll("time:not(.clock)")) {
    const s = Math.max(0, Math.floor((Date.now() - new Date(time.dateTime)) / 1000));
    const text = s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min`
      : s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`
      : `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
    if (time.textContent !== text) time.textContent = text;
  }
}

// The same drawing as in Chart on the server.
const WIDTH = 120, HEIGHT = 28;

function push(line, value) {
  const values = line.dataset.values ? line.dataset.values.split(" ") : [];
  values.push(value ?? "-");
  while (values.length > WIDTH) values.shift();
  line.dataset.values = values.join(" ");
  return values.map((v) => v === "-" ? null : Number(v));
}

function path(values, top) {
  let pen = "M";
  return values.map((value, i) => {
    if (value === null) { pen = "M"; return ""; }
    const x = i + WIDTH - values.length, y = (HEIGHT - 1 - value / top * (HEIGHT - 2)).toFixed(1);
    const step = pen === "M" ? `M${x},${y}h0` : `L${x},${y}`;
    pen = "L";
    return step;
  }).join("");
}

function draw(svg, news) {
  const lines = [...svg.querySelectorAll("path")];
  const all = lines.map((line, i) => push(line, news[i]));
  const top = Math.max(0.1, ...all.flat());
  lines.forEach((line, i) => line.setAttribute("d", path(all[i], top)));
}

const number = (v) => v >= 10 ? String(Math.round(v)) : v.toFixed(1);
const time = (ms) => ms == null ? "–" : ms >= 1000 ? `${(ms / 1000).toFixed(1)} s`
  : ms >= 10 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`;

function show(box, metric, text, news) {
  const element = box.querySelector(`[data-metric="${metric}"]`);
  if (text) element.querySelector(".value").textContent = text;
  if (news) draw(element.querySelector("svg"), news);
}

function sample(services) {
  for (const box of document.querySelectorAll(".live")) {
    const now = services[box.dataset.service];
    if (!now) continue;
    show(box, "rate", `${number(now.rate)}/s`, [now.rate]);
    show(box, "errors", `${number(now.errors)}/s`, [now.errors]);
    show(box, "latency", now.p50 == null ? null : `${time(now.p50)}, ${time(now.p99)}`, [now.p50, now.p99]);
    for (const key of ["in_flight", "tunnels", "requests"]) show(box, key, String(now[key]));
    box.classList.toggle("failing", now.errors > 0);
  }
  ages();
}

// Restores the focus after an element was replaced.
function parts(changed) {
  for (const [id, html] of Object.entries(changed)) {
    const element = document.getElementById(id);
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    const key = focused && (focused.href || focused.textContent);
    element.innerHTML = html;
    offerCopies(element);
    localTimes(element);
    if (key) {
      [...element.querySelectorAll("a, button, [tabindex]")]
        .find((it) => (it.href || it.textContent) === key)?.focus();
    }
  }
}

const connection = document.getElementById("connection");

function say(text, kind) {
  connection.hidden = false;
  connection.className = `chip ${kind}`;
  if (connection.textContent !== text) connection.textContent = text;
}

// Each open stream takes one of the few connections that a browser has for a host, so a hidden page
// closes its stream.
let source = null;

function open() {
  if (source) return;
  source = new EventSource("/.mesh/live");
  let met = false;
  source.addEventListener("hello", () => {
    // Reconnected, perhaps to another gateway: the page may be outdated.
    if (met) location.reload();
    met = true;
    say("Live", "good");
  });
  source.addEventListener("sample", (event) => sample(JSON.parse(event.data)));
  source.addEventListener("parts", (event) => parts(JSON.parse(event.data)));
  source.onerror = () => {
    say("Disconnected", "bad");
    if (source.readyState === EventSource.CLOSED) { close(); setTimeout(open, 2000); }
  };
}

function close() {
  source?.close();
  source = null;
}

document.addEventListener("visibilitychange", () => {
  // A page that was hidden is outdated.
  if (document.visibilityState === "visible") { if (!source) location.reload(); } else close();
});

offerCopies(document);
localTimes(document);
ages();
if (document.visibilityState === "visible") open();
