defmodule ExServiceMeshRouter.Index.Words do
  @moduledoc false
  # The report's values as people say them.

  def state(:listening), do: "up"
  def state(:not_listening), do: "down"

  @doc "How long ago, as `3 min`."
  def since(nil), do: ""

  def since(time) do
    case DateTime.diff(DateTime.utc_now(), time) do
      seconds when seconds < 60 ->
        "#{max(seconds, 0)} s"

      seconds when seconds < 3_600 ->
        "#{div(seconds, 60)} min"

      seconds when seconds < 86_400 ->
        "#{div(seconds, 3_600)} h #{div(rem(seconds, 3_600), 60)} min"

      seconds ->
        "#{div(seconds, 86_400)} d #{div(rem(seconds, 86_400), 3_600)} h"
    end
  end

  def source(%{source: :endpoint, application: application}), do: "endpoint of #{application}"
  def source(%{source: :config}), do: "configured"
  def source(%{source: :runtime}), do: "put at run time"

  @doc "`1 service`, `2 services`."
  def count(1, one), do: "1 #{one}"
  def count(n, one), do: "#{n} #{one}s"
end
