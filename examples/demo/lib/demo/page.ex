defmodule Demo.Page do
  @moduledoc "Renders the page of a service: plain HTML with a short script."

  import ExServiceMeshRouter.Console.Index.Html, only: [escape: 1]

  @style """
  :root { color-scheme: light dark; --line: #8884; --soft: #8881; --mark: #2563eb; }
  @media (prefers-color-scheme: dark) { :root { --mark: #7aa7ff; } }
  * { box-sizing: border-box; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 0 auto; padding: 2rem 1rem; }
  h1 { margin: 0 0 .25rem; font-size: 2rem; }
  h1 span { color: var(--mark); }
  h2 { margin: 0 0 .5rem; font-size: 1rem; }
  p { margin: 0 0 1rem; }
  a { color: var(--mark); }
  section { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 1rem 0; }
  output, pre { display: block; margin: .5rem 0 0; padding: .5rem; border-radius: .25rem;
    background: var(--soft); font: .85rem/1.4 ui-monospace, monospace; min-height: 2.2em;
    white-space: pre-wrap; overflow-wrap: anywhere; }
  nav a { margin-right: 1rem; white-space: nowrap; }
  input, button { font: inherit; max-width: 100%; }
  """

  # The requests go to the origin of the page, so they pass through the gateway.
  @script """
  const show = (id, text) => { document.getElementById(id).textContent = text };

  new EventSource("/sse").onmessage = (event) => show("sse", event.data);

  const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
  socket.onopen = () => show("ws", "open");
  socket.onclose = () => show("ws", "closed");
  socket.onmessage = (event) => show("ws", "echo: " + event.data);
  document.getElementById("say").oninput = (event) => socket.send(event.target.value);

  document.getElementById("file").onchange = async (event) => {
    show("upload", "sending");
    const answer = await fetch("/upload", { method: "PUT", body: event.target.files[0] });
    show("upload", await answer.text());
  };

  fetch("/headers").then((answer) => answer.json()).then(({ headers }) =>
    show("headers", headers.map(([name, value]) => name + ": " + value).join("\\n")));
  """

  @doc "Renders the page of `service` for a request with this `host`; `tenant` may be `nil`."
  @spec render(
          %{
            required(:name) => String.t(),
            required(:host) => String.t(),
            required(:peers) => [String.t()],
            optional(:node) => pos_integer()
          },
          String.t(),
          nil | String.t()
        ) ::
          iodata()
  def render(service, host, tenant) do
    """
    <!doctype html>
    <html lang="en">
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>#{escape(service.name)}#{if tenant, do: " · " <> escape(tenant)}</title>
    <link rel="icon" href="data:,">
    <style>#{@style}</style>
    <h1>This is <span id="service">#{escape(service.name)}</span></h1>
    <p>#{node_line(service)}#{tenant_line(tenant)} You asked for <code>#{escape(host)}</code>.</p>
    <nav>#{links(service.peers, host)}</nav>
    <section><h2>Server-sent events</h2><output id="sse"></output></section>
    <section>
      <h2>WebSocket</h2>
      <input id="say" placeholder="Type to get an echo" autocomplete="off">
      <output id="ws"></output>
    </section>
    <section>
      <h2>Upload, of any size</h2>
      <input id="file" type="file"><output id="upload"></output>
    </section>
    <section><h2>Received headers</h2><output id="headers"></output></section>
    <script>#{@script}</script>
    </html>
    """
  end

  defp node_line(%{node: node}), do: ~s(Served by <b id="node">node #{node}</b>. )
  defp node_line(_service), do: ""

  defp tenant_line(nil), do: ~s(No <b id="tenant">tenant</b> in this host.)
  defp tenant_line(tenant), do: ~s(The tenant is <b id="tenant">#{escape(tenant)}</b>.)

  defp links(peers, host) do
    port = host |> String.split(":") |> Enum.at(1)
    port = if port, do: ":" <> port, else: ""

    for peer <- peers, name <- [peer, "tenant1." <> peer], into: "" do
      ~s(<a href="//#{escape(name <> port)}/">#{escape(name)}</a> )
    end
  end
end
