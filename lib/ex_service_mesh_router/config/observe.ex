defmodule ExServiceMeshRouter.Config.Observe do
  @moduledoc false
  # The keys about what the gateway tells of itself: `{value, mistakes}`, as in Config.Check.

  alias ExServiceMeshRouter.Config.{Check, Host}

  @formats [:common, :combined, :json, :logfmt]

  def formats, do: @formats

  def flag(_key, value) when is_boolean(value), do: {value, []}
  def flag(key, value), do: mistake(key, value, "true or false")

  def trace(value) when value in [nil, :start], do: {value, []}
  def trace(value), do: mistake("trace", value, ":start or nil")

  @doc "The share of requests that become telemetry events; 0 is none."
  def telemetry(value) do
    keyword("telemetry", value, [sample: false], "[sample: 0.01]", fn
      :sample, share when share in [false, nil] -> {:ok, 0.0}
      :sample, true -> {:ok, 1.0}
      :sample, share when is_number(share) and share >= 0 and share <= 1 -> {:ok, share / 1}
      :sample, _ -> {:error, "a share of the requests from 0.0 to 1.0, or false"}
    end)
  end

  def access_log(false), do: {nil, []}
  def access_log(true), do: access_log([])

  def access_log(value) do
    known = [format: :combined, to: :logger, query: false]

    keyword("access_log", value, known, ~s|false or [format: :combined, to: "/path"]|, fn
      :format, format when format in @formats -> {:ok, format}
      :format, _ -> {:error, "one of #{Enum.map_join(@formats, ", ", &inspect/1)}"}
      :to, :logger -> {:ok, :logger}
      :to, path when is_binary(path) and path != "" -> {:ok, path}
      :to, _ -> {:error, ":logger or the path of a file"}
      :query, query when is_boolean(query) -> {:ok, query}
      :query, _ -> {:error, "true or false"}
    end)
  end

  def metrics(false), do: {nil, []}

  def metrics(value) do
    known = [port: nil, ip: {127, 0, 0, 1}, host: nil]

    {values, mistakes} =
      keyword("metrics", value, known, "false, [port: 9568] or [host: \"...\"]", fn
        :port, port when port in 0..65_535 or port == nil -> {:ok, port}
        :port, _ -> {:error, "an integer from 0 to 65535"}
        :ip, ip -> if is_tuple(ip) and :inet.is_ip_address(ip), do: {:ok, ip}, else: wrong_ip()
        :host, nil -> {:ok, nil}
        :host, host -> with :error <- Host.normalise(host), do: {:error, "a host name"}
      end)

    if mistakes == [] and values.port == nil == (values.host == nil),
      do: mistake("metrics", value, "either a port or a host"),
      else: {values, mistakes}
  end

  defp wrong_ip, do: {:error, "an address tuple such as {127, 0, 0, 1}"}

  defp keyword(name, value, known, accepted, check) do
    if Keyword.keyword?(value) do
      unknown = Check.unknown(value, Keyword.keys(known), "#{name}.")

      {values, mistakes} =
        Enum.map_reduce(known, [], fn {key, default}, mistakes ->
          given = Keyword.get(value, key, default)

          case check.(key, given) do
            {:ok, checked} ->
              {{key, checked}, mistakes}

            {:error, expected} ->
              {{key, default}, mistakes ++ [wrong(name, key, given, expected)]}
          end
        end)

      {Map.new(values), unknown ++ mistakes}
    else
      mistake(name, value, accepted)
    end
  end

  defp wrong(name, key, value, expected),
    do: %{key: "#{name}.#{key}", value: value, expected: expected, unknown: false}

  defp mistake(key, value, expected),
    do: {nil, [%{key: "#{key}", value: value, expected: expected, unknown: false}]}
end
