defmodule ExServiceMeshRouter.Console.Index.Assets do
  @moduledoc false
  # Serves the style, the script and the icon of the page under `/.mesh/`. The module contains the files,
  # so that they need no build and no path at run time.

  alias ExServiceMeshRouter.Console.Index.Stream

  @folder Path.join(__DIR__, "assets")

  @files [
    {"page.css", "text/css; charset=utf-8"},
    {"page.js", "text/javascript; charset=utf-8"},
    {"icon.svg", "image/svg+xml"}
  ]

  for {file, type} <- @files do
    path = Path.join(@folder, file)
    @external_resource path
    defp file(unquote(file)), do: {unquote(type), unquote(File.read!(path))}
  end

  defp file(_other), do: nil

  @doc "Returns `{status, headers, body}`, or `nil` for an unknown path."
  def answer("live", _request, config), do: Stream.answer(config)

  def answer(name, _request, _config) do
    with {type, body} <- file(name), do: {200, [{"content-type", type}], body}
  end
end
