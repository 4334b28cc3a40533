defmodule ExServiceMeshRouter.LiveDashboard.Format do
  @moduledoc false
  # Formats the values of a reading.

  alias ExServiceMeshRouter.Console.Index.Words
  alias ExServiceMeshRouter.Console.Places

  @units ["KiB", "MiB", "GiB", "TiB", "PiB"]

  @doc "Formats a rate; `nil` is not known yet."
  def number(nil), do: "–"
  def number(rate), do: Words.number(rate)

  @doc "Formats milliseconds; `nil` if there were no requests."
  defdelegate time(milliseconds), to: Words

  def times(%{p50: nil}), do: "–"
  def times(%{p50: p50, p99: p99}), do: "#{time(p50)}, #{time(p99)}"

  def state(service), do: Words.state(service.state)

  def up?(service), do: service.state == :listening

  def failing?(service), do: service.errors != nil and service.errors > 0

  def upstreams(%{upstreams: []}), do: "nowhere"
  def upstreams(service), do: Places.text(service)

  def clock(time), do: Calendar.strftime(time, "%H:%M:%S")

  def bytes(count) when count < 1_024, do: "#{count} B"
  def bytes(count), do: bytes(count / 1_024, @units)

  defp bytes(count, [_unit | [_ | _] = larger]) when count >= 1_024,
    do: bytes(count / 1_024, larger)

  defp bytes(count, [unit | _]), do: "#{:erlang.float_to_binary(count, decimals: 1)} #{unit}"
end
