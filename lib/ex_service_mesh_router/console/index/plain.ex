defmodule ExServiceMeshRouter.Console.Index.Plain do
  @moduledoc false
  # The data plane's 404 in its three forms, for those who may not see the index; and, for those who
  # may, but came under a name that could be a stranger's, the same with the way to it.

  alias ExServiceMeshRouter.Json
  alias ExServiceMeshRouter.Console.Index.Html
  alias ExServiceMeshRouter.Registry.IndexRow

  @doc "The answer's body. Without a configuration it says nothing but that."
  def render(form, host, config) do
    host = if host in [nil, IndexRow.anchor()], do: "", else: host
    body(form, "unknown service: " <> host, config && "http://127.0.0.1:#{port(config)}/")
  end

  defp port(config), do: ExServiceMeshRouter.port(config.name)

  defp body(:text, why, nil), do: [why, "\n"]
  defp body(:text, why, url), do: [why, "\nwhat there is: ", url, "\n"]

  defp body(:json, why, url) do
    # The members in the order of the data plane.
    index = if url, do: [~s(,"index":), Json.encode(url)], else: []
    [~s({"status":404,"error":"Not Found","reason":), Json.encode(why), index, "}\n"]
  end

  defp body(:html, why, url) do
    # Without an index it is the data plane's own page, with it a page whose policy forbids styles.
    style =
      if url,
        do: "",
        else:
          ~s| style="font:1rem/1.5 system-ui,sans-serif;margin:4rem auto;max-width:36rem;padding:0 1rem"|

    link = if url, do: ~s|<p>What there is: <a href="#{url}">#{url}</a></p>|, else: ""

    [
      ~s|<!doctype html>\n<html lang="en"><head><meta charset="utf-8">|,
      ~s|<meta name="viewport" content="width=device-width">|,
      ~s|<meta name="color-scheme" content="light dark">|,
      ~s|<title>404 Not Found</title></head><body#{style}>|,
      ~s|<h1>404 Not Found</h1><p>#{Html.escape(why)}</p>#{link}</body></html>\n|
    ]
  end
end
