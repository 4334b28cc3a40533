defmodule ExServiceMeshRouter.Config.Check do
  @moduledoc false
  # One function for each kind of value. All return `{value, mistakes}`: a mistake does not end the
  # check, for the rest of the configuration is to be read as well.

  alias ExServiceMeshRouter.Config.{DoctorChecks, Host, Network, Upstream}

  # File IO of the whole VM goes through the dirty IO schedulers.
  @left_to_file_io 2

  def max_workers, do: max(1, :erlang.system_info(:dirty_io_schedulers) - @left_to_file_io)
  def default_workers, do: System.schedulers_online() |> div(4) |> max(1) |> min(max_workers())

  def port(value) when value in 0..65_535, do: {value, []}
  def port(value), do: mistake("port", value, "an integer from 0 to 65535")

  def server(value) when value in [true, false, nil], do: {value, []}
  def server(value), do: mistake("server", value, "true or false")

  def workers(value) when is_integer(value) and value > 0 do
    most = max_workers()

    if value <= most do
      {value, []}
    else
      mistake(
        "workers",
        value,
        "at most #{most}: each worker takes one of the #{most + @left_to_file_io} dirty IO " <>
          "schedulers, and file IO needs #{@left_to_file_io} (more with the emulator flag +SDio)"
      )
    end
  end

  def workers(value), do: mistake("workers", value, "an integer from 1 to #{max_workers()}")

  def ip(value) when value in [:loopback, :any], do: {value, []}

  def ip([_ | _] = list) do
    case Enum.reject(list, &address?/1) do
      [] -> {list, []}
      [wrong | _] -> mistake("ip", wrong, accepted_ip())
    end
  end

  def ip(value),
    do: if(address?(value), do: {value, []}, else: mistake("ip", value, accepted_ip()))

  defp address?(value), do: is_tuple(value) and :inet.is_ip_address(value)

  defp accepted_ip,
    do: ":loopback, :any, an address tuple such as {127, 0, 0, 1}, or a list of tuples"

  def services(services) when is_map(services) or is_list(services) do
    if Enum.all?(services, &match?({_, _}, &1)) do
      Enum.reduce(services, {%{}, []}, fn entry, {values, mistakes} ->
        {service, new} = service(entry)
        {Map.merge(values, service), mistakes ++ new}
      end)
    else
      services(:malformed, services)
    end
  end

  def services(value), do: services(:malformed, value)

  defp services(:malformed, value) do
    mistake("services", value, ~s|a map such as %{"legacy.local" => "http://127.0.0.1:9001"}|)
  end

  defp service({host, upstreams}) do
    case {Host.normalise(host), Upstream.parse(upstreams)} do
      {{:ok, host}, {:ok, upstreams}} ->
        {%{host => upstreams}, []}

      {:error, _} ->
        {%{}, [wrong("services", host, "a host name without a port as the key")]}

      {{:ok, _}, {:error, part}} ->
        {%{}, [wrong("services[#{inspect(host)}]", part, Upstream.accepted())]}
    end
  end

  def discover(value) when is_boolean(value), do: {value, []}

  def discover(value) do
    if Keyword.keyword?(value) do
      unknown = unknown(value, [:only, :except], "discover.")

      mistakes =
        for {key, list} <- value, key in [:only, :except], not atoms?(list) do
          wrong("discover.#{key}", list, "a list of applications or endpoint modules")
        end

      {value, unknown ++ mistakes}
    else
      mistake("discover", value, "true, false, or [only: [...], except: [...]]")
    end
  end

  def private_listeners(value) when value in [:auto, :never, :all], do: {value, []}

  def private_listeners(value) do
    if atoms?(value),
      do: {value, []},
      else:
        mistake("private_listeners", value, ":auto, :never, :all, or a list of endpoint modules")
  end

  defp atoms?(list), do: is_list(list) and Enum.all?(list, &is_atom/1)

  def default(value) do
    case Host.normalise(value) do
      {:ok, host} -> {host, []}
      :error -> mistake("default", value, "a host name without a port, or nil")
    end
  end

  def dev_domain(value) when value in [nil, false], do: {nil, []}

  def dev_domain(value) do
    with {:ok, host} <- Host.normalise(value), false <- Host.address?(host) do
      {host, []}
    else
      _ -> mistake("dev_domain", value, ~s|a domain such as "localhost", or nil|)
    end
  end

  @loopback ["127.0.0.0/8", "::1"]

  @doc "The networks that may see the index, or `nil` without one. Loopback always may."
  def index(true), do: {Enum.map(@loopback, &Network.parse!/1), []}
  def index(false), do: {nil, []}

  def index(allow: list) when is_list(list) do
    case Enum.filter(list, &(Network.parse(&1) == :error)) do
      [] -> {Enum.map(@loopback ++ list, &Network.parse!/1), []}
      [wrong | _] -> mistake("index.allow", wrong, accepted_cidr())
    end
  end

  def index(value),
    do: mistake("index", value, ~s|:auto, true, false, or [allow: ["10.0.0.0/8", ...]]|)

  @doc "The checks of the doctor that are left."
  def doctor(true), do: {DoctorChecks.names(), []}
  def doctor(false), do: {[], []}

  def doctor(except: list) when is_list(list) do
    case list -- DoctorChecks.names() do
      [] -> {DoctorChecks.names() -- list, []}
      [wrong | _] -> mistake("doctor.except", wrong, "some of #{inspect(DoctorChecks.names())}")
    end
  end

  def doctor(value), do: mistake("doctor", value, "true, false, or [except: [:local_names, ...]]")

  def trusted_proxies(list) when is_list(list) do
    Enum.reduce(list, {[], []}, fn text, {values, mistakes} ->
      case cidr(text) do
        {:ok, cidr} -> {values ++ [cidr], mistakes}
        :error -> {values, mistakes ++ [wrong("trusted_proxies", text, accepted_cidr())]}
      end
    end)
  end

  def trusted_proxies(value),
    do: mistake("trusted_proxies", value, "a list of " <> accepted_cidr())

  def proxy_protocol(value) when value in [nil, :v1, :v2, :any], do: {value, []}
  def proxy_protocol(value), do: mistake("proxy_protocol", value, ":v1, :v2, :any or nil")

  defp accepted_cidr, do: ~s|addresses or CIDR blocks as strings, such as "10.0.0.0/8"|

  defp cidr(text) do
    with {:ok, network} <- Network.parse(text), do: {:ok, Network.to_string(network)}
  end

  @doc "A keyword list with a known set of keys, each with a default."
  def group(name, value, known, check) do
    if Keyword.keyword?(value) or is_map(value) do
      value = Enum.to_list(value)
      unknown = unknown(value, Keyword.keys(known), "#{name}.")

      {values, mistakes} =
        Enum.map_reduce(known, [], fn {key, {default, _meaning}}, mistakes ->
          {checked, new} = member(name, key, Keyword.get(value, key, default), check)
          {{key, checked}, mistakes ++ new}
        end)

      {Map.new(values), unknown ++ mistakes}
    else
      example =
        "a keyword list such as [#{known |> hd() |> elem(0)}: #{known |> hd() |> elem(1) |> elem(0)}]"

      {_, mistakes} = mistake("#{name}", value, example)
      {Map.new(known, fn {key, {default, _}} -> {key, default} end), mistakes}
    end
  end

  defp member(name, key, value, check) do
    case check.({key, value}) do
      :ok -> {value, []}
      {:error, expected} -> {value, [wrong("#{name}.#{key}", value, expected)]}
    end
  end

  # 100 days: beyond that a timer is a mistake in the unit.
  @longest 8_640_000_000

  def time({:lame_duck, value}) when value in 0..@longest, do: :ok
  def time({:lame_duck, _}), do: {:error, "milliseconds (0 or more)"}
  def time({_key, :infinity}), do: :ok
  def time({key, 0}) when key in [:drain, :hold], do: :ok
  def time({_key, value}) when value in 1..@longest, do: :ok

  def time({key, _}) when key in [:drain, :hold],
    do: {:error, "milliseconds (0 or more) or :infinity"}

  def time(_other), do: {:error, "milliseconds (1 or more) or :infinity"}

  @optional [
    :body_bytes,
    :connections,
    :connections_per_client,
    :requests_per_connection,
    :body_rate
  ]
  def limit({key, :infinity}) when key in @optional, do: :ok
  def limit({:head_bytes, value}) when value in 1_024..16_777_216, do: :ok
  def limit({:head_bytes, _}), do: {:error, "bytes, from 1024 to 16777216"}
  def limit({:header_count, value}) when value in 8..512, do: :ok
  def limit({:header_count, _}), do: {:error, "an integer from 8 to 512"}
  def limit({:body_bytes, value}) when is_integer(value) and value >= 0, do: :ok
  def limit({:body_bytes, _}), do: {:error, "bytes (0 or more) or :infinity"}
  def limit({:buffer_bytes, value}) when is_integer(value) and value >= 0, do: :ok
  def limit({:buffer_bytes, _}), do: {:error, "bytes (0 or more)"}
  def limit({:held_requests, value}) when is_integer(value) and value >= 0, do: :ok
  def limit({:held_requests, _}), do: {:error, "an integer (0 or more)"}
  def limit({_key, value}) when is_integer(value) and value > 0, do: :ok
  def limit(_other), do: {:error, "an integer (1 or more) or :infinity"}

  @doc "A mistake for each key that is not known, with the one that was probably meant."
  def unknown(options, known, prefix) do
    for {key, value} <- options, key not in known do
      %{wrong("#{prefix}#{inspect_key(key)}", value, meant(key, known)) | unknown: true}
    end
  end

  defp meant(key, known) do
    text = inspect_key(key)
    nearest = Enum.max_by(known, &String.jaro_distance(Atom.to_string(&1), text))
    "did you mean #{nearest}? Known keys: #{Enum.join(known, ", ")}"
  end

  defp inspect_key(key) when is_atom(key), do: key |> inspect() |> String.trim_leading(":")
  defp inspect_key(key), do: inspect(key)

  defp mistake(key, value, expected), do: {nil, [wrong(key, value, expected)]}

  defp wrong(key, value, expected),
    do: %{key: key, value: value, expected: expected, unknown: false}
end
