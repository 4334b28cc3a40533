defmodule ExServiceMeshRouter.Console.Index.Plain do
  @moduledoc false
  # Renders the data plane's 404 in its three forms, for clients that may not see the index. With a
  # configuration, it has a link to the index, for clients that used a foreign host.

  alias ExServiceMeshRouter.Json
  alias ExServiceMeshRouter.Console.Index.Html
  alias ExServiceMeshRouter.Registry.IndexRow

  @doc "Returns the body of the answer, with a link to the index if `config` is not `nil`."
  def render(form, host, config) do
    host = if host in [nil, IndexRow.anchor()], do: "", else: host
    body(form, "unknown service: " <> host, config && "http://127.0.0.1:#{port(config)}/")
  end

  defp port(config), do: ExServiceMeshRouter.port(config.name)

  defp body(:text, why, nil), do: [why, "\n"]
  defp body(:text, why, url), do: [why, "\nall services: ", url, "\n"]

  defp body(:json, why, url) do
    # In the key order of the data plane.
    index = if url, do: [~s(,"index":), Json.encode(url)], else: []
    [~s({"status":404,"error":"Not Found","reason":), Json.encode(why), index, "}\n"]
  end

  defp body(:html, why, url) do
    # The data plane's page has a style, which the policy of the index forbids.
    style =
      if url,
        do: "",
        else:
          ~s| style="font:1rem/1.5 system-ui,sans-serif;margin:4rem auto;max-width:36rem;padding:0 1rem"|

    link = if url, do: ~s|<p>All services: <a href="#{url}">#{url}</a></p>|, else: ""

    [
      ~s|<!doctype html>\n<html lang="en"><head><meta charset="utf-8">|,
      ~s|<meta name="viewport" content="width=device-width">|,
      ~s|<meta name="color-scheme" content="light dark">|,
      ~s|<title>404 Not Found</title></head><body#{style}>|,
      ~s|<h1>404 Not Found</h1><p>#{Html.escape(why)}</p>#{link}</body></html>\n|
    ]
  end
end
