defmodule ExServiceMeshRouter.Console.Index.Handler do
  @moduledoc false
  # Answers the requests to the index.

  alias ExServiceMeshRouter.{Json, Registry}
  alias ExServiceMeshRouter.Config.Host
  alias ExServiceMeshRouter.Console.Index.{Access, Assets, Page, Plain, Report, Text}
  alias ExServiceMeshRouter.Http.Request

  @html "text/html; charset=utf-8"
  @json "application/json"
  @text "text/plain; charset=utf-8"

  # No foreign or inline resources, and no frames.
  @policy "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; " <>
            "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

  @common [
    {"cache-control", "no-store"},
    {"content-security-policy", @policy},
    {"x-content-type-options", "nosniff"},
    {"referrer-policy", "no-referrer"},
    {"cross-origin-resource-policy", "same-origin"},
    {"vary", "accept"}
  ]

  @doc "Returns the response to a request, see Http.Response."
  def answer(request, config) do
    host = host(request)
    form = request |> Request.all("accept") |> form()

    if Access.allowed?(request.headers, config.index) do
      known = config.name |> Registry.all() |> Enum.flat_map(& &1.hosts)
      answer(request, form, Access.host(host, known), host, config)
    else
      plain(form, host)
    end
  end

  # The answer of the data plane without an index.
  defp plain(form, host),
    do: respond(404, form, Plain.render(form, host, nil), [{"cache-control", "no-store"}])

  defp answer(_request, form, :foreign, host, config),
    do: respond(404, form, Plain.render(form, host, config), @common)

  defp answer(%{method: method}, form, :own, _host, _config) when method not in ["GET", "HEAD"],
    do: respond(405, form, "only GET and HEAD are allowed\n", [{"allow", "GET, HEAD"} | @common])

  defp answer(%{path: "/.mesh/" <> asset} = request, form, kind, host, config) do
    case Assets.answer(asset, request, config) do
      nil -> page(404, form, kind, host, config)
      {status, headers, body} -> {status, headers ++ @common, body}
    end
  end

  defp answer(%{path: "/"}, form, :own, host, config), do: page(200, form, :own, host, config)
  defp answer(_request, form, kind, host, config), do: page(404, form, kind, host, config)

  defp page(status, form, kind, host, config) do
    asked = if kind == :near, do: host
    report = Report.new(config, asked)

    case form do
      :html -> respond(status, :html, Page.render(report), @common)
      :json -> respond(status, :json, [report |> Report.plain() |> Json.encode(), "\n"], @common)
      :text -> respond(status, :text, Text.render(report), @common)
    end
  end

  defp respond(status, form, body, headers),
    do: {status, [{"content-type", type(form)} | headers], body}

  defp type(:html), do: @html
  defp type(:json), do: @json
  defp type(:text), do: @text

  # The first of the three forms in `Accept`, otherwise text, as in the data plane's own answers.
  @forms %{"text/html" => :html, "application/json" => :json, "text/plain" => :text}

  defp form(accepts) do
    accepts
    |> Enum.flat_map(&String.split(&1, ","))
    |> Enum.map(&(&1 |> String.split(";") |> hd() |> String.trim() |> String.downcase(:ascii)))
    |> Enum.find_value(:text, &@forms[&1])
  end

  # The host by which the gateway routed, or `nil`.
  defp host(request) do
    with field when is_binary(field) <- Request.one(request, "host"),
         {:ok, host, _port} <- Host.parse(field) do
      host
    else
      _ -> nil
    end
  end
end
