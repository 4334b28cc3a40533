defmodule ExServiceMeshRouter.Console.Index.Chart do
  @moduledoc false
  # Draws the last two minutes as inline SVG. The script of the page continues the same drawing.

  @width 120
  @height 28

  @doc "Draws one line per key of the samples, which have the latest first; `nil` is a gap."
  def svg(samples, keys) do
    samples = Enum.reverse(samples)
    lines = for key <- keys, do: Enum.map(samples, & &1[key])
    top = lines |> List.flatten() |> Enum.reject(&is_nil/1) |> Enum.max(fn -> 0 end) |> max(0.1)

    [
      ~s|<svg class="spark" viewBox="0 0 #{@width} #{@height}" preserveAspectRatio="none" aria-hidden="true">|,
      for({values, index} <- Enum.with_index(lines), do: line(values, top, index)),
      "</svg>"
    ]
  end

  defp line(values, top, index) do
    data = Enum.map_join(values, " ", &(&1 || "-"))
    ~s|<path class="line#{index}" data-values="#{data}" d="#{path(values, top)}"/>|
  end

  # Each run of values is a separate line; a single value is a dot, visible because of round line caps.
  defp path(values, top) do
    {steps, _} =
      values
      |> Enum.with_index(@width - length(values))
      |> Enum.map_reduce("M", fn
        {nil, _x}, _pen -> {"", "M"}
        {value, x}, "M" -> {"M#{x},#{y(value, top)}h0", "L"}
        {value, x}, "L" -> {"L#{x},#{y(value, top)}", "L"}
      end)

    Enum.join(steps)
  end

  # Leaves a pixel above and below, so that the line is not cut.
  defp y(value, top), do: Float.round(@height - 1 - value / top * (@height - 2), 1)
end
