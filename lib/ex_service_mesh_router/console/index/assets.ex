defmodule ExServiceMeshRouter.Console.Index.Assets do
  @moduledoc false
  # What the page loads, under `/.mesh/`: its style, its script, its icon. They are part of the
  # module, so that there is nothing to build and nothing to find at run time.

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

  @doc "`{status, headers, body}`, or `nil` for what there is not."
  def answer("live", _request, config), do: Stream.answer(config)

  def answer(name, _request, _config) do
    with {type, body} <- file(name), do: {200, [{"content-type", type}], body}
  end
end
