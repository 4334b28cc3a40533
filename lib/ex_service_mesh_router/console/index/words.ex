defmodule ExServiceMeshRouter.Console.Index.Words do
  @moduledoc false
  # The report's values as people say them, errors included.

  @errors %{
    bad_request: "a request was malformed",
    bad_host: "a request had a malformed host",
    target_too_long: "a request target was too long",
    head_too_long: "a request head was too long",
    too_many_fields: "a request had too many header fields",
    body_too_long: "a request body was too long",
    head_timeout: "a request head did not arrive in time",
    body_timeout: "a request body stopped arriving",
    reader_timeout: "a client stopped reading its answer",
    not_implemented: "a request wanted what the gateway does not do",
    misdirected: "an https target came without TLS, and not from a trusted proxy",
    request_loop: "the upstream leads back to the gateway",
    version: "a request had an unknown version of HTTP",
    unknown_service: "nobody has the host",
    not_listening: "it does not listen",
    held_too_long: "it did not come back in time",
    overloaded: "the gateway had no room for more",
    too_many_connections: "an address had too many connections",
    out_of_sockets: "the gateway could open no more connections",
    connect: "it refused the connection",
    unreachable: "this machine has no way to its address",
    connect_timeout: "it did not accept the connection in time",
    response_timeout: "it did not answer in time",
    upstream_closed: "it closed the connection before its answer was through",
    bad_response: "its answer was no HTTP",
    client_gone: "the client went away"
  }

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

  @doc "A rate as people read it."
  def number(value) when value >= 10, do: value |> round() |> Integer.to_string()
  def number(value), do: :erlang.float_to_binary(value / 1, decimals: 1)

  @doc "Milliseconds as people read them."
  def time(nil), do: "–"
  def time(ms) when ms >= 1_000, do: "#{:erlang.float_to_binary(ms / 1_000, decimals: 1)} s"
  def time(ms) when ms >= 10, do: "#{round(ms)} ms"
  def time(ms), do: "#{:erlang.float_to_binary(ms / 1, decimals: 1)} ms"

  @doc "A kind of error, a key of `errors` of the statistics."
  def error(kind),
    do: Map.get(@errors, kind, kind |> Atom.to_string() |> String.replace("_", " "))
end
