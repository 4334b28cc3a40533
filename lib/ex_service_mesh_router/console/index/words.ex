defmodule ExServiceMeshRouter.Console.Index.Words do
  @moduledoc false
  # Formats the values and errors of the report.

  @errors %{
    bad_request: "a request was malformed",
    bad_host: "a request had a malformed host",
    target_too_long: "a request target was too long",
    head_too_long: "a request head was too long",
    too_many_fields: "a request had too many header fields",
    body_too_long: "a request body was too long",
    head_timeout: "a request head did not arrive in time",
    body_timeout: "a request body stopped arriving",
    reader_timeout: "a client stopped reading its response",
    not_implemented: "a request used a feature that the gateway does not support",
    misdirected: "a request without TLS had an https target and was not from a trusted proxy",
    request_loop: "the upstream leads back to the gateway",
    version: "a request had an unsupported version of HTTP",
    unknown_service: "no service has the host",
    not_listening: "it does not listen",
    held_too_long: "it did not come back in time",
    overloaded: "the gateway had no capacity for the request",
    too_many_connections: "an address had too many connections",
    out_of_sockets: "the gateway could open no more connections",
    connect: "it refused the connection",
    unreachable: "this machine has no way to its address",
    connect_timeout: "it did not accept the connection in time",
    response_timeout: "it did not answer in time",
    upstream_closed: "it closed the connection before the end of its response",
    bad_response: "its response was not valid HTTP",
    refused: "it could not take a request that another node sent here",
    refused_by_peer: "the nodes that have it did not take the request",
    client_gone: "the client disconnected"
  }

  def state(:listening), do: "up"
  def state(:not_listening), do: "down"

  @doc "Formats the time since a moment, as `3 min`."
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

  def source(%{source: :endpoint, in_vm: why} = service) when is_binary(why),
    do: "#{source(%{service | in_vm: false})}, not in VM: #{why}"

  def source(%{source: :endpoint, application: application}), do: "endpoint of #{application}"
  def source(%{source: :config}), do: "configured"
  def source(%{source: :runtime}), do: "put at run time"
  def source(%{source: :peer}), do: "endpoint of other nodes"

  @doc "Formats a count: `1 service`, `2 services`."
  def count(1, one), do: "1 #{one}"
  def count(n, one), do: "#{n} #{one}s"

  @doc "Formats a rate."
  def number(value) when value >= 10, do: value |> round() |> Integer.to_string()
  def number(value), do: :erlang.float_to_binary(value / 1, decimals: 1)

  @doc "Formats milliseconds."
  def time(nil), do: "–"
  def time(ms) when ms >= 1_000, do: "#{:erlang.float_to_binary(ms / 1_000, decimals: 1)} s"
  def time(ms) when ms >= 10, do: "#{round(ms)} ms"
  def time(ms), do: "#{:erlang.float_to_binary(ms / 1, decimals: 1)} ms"

  @doc "Describes a kind of error, a key of `errors` of the statistics."
  def error(kind),
    do: Map.get(@errors, kind, kind |> Atom.to_string() |> String.replace("_", " "))
end
