defmodule ExServiceMeshRouter.Config.Type do
  @moduledoc false
  # Defines the types of options. Each has a clause of read/2, which validates a value, of expected/1,
  # which describes the accepted values in errors and documentation, and of spec/1, its typespec.
  #
  #     {unit, min} or {unit, min..max}   an integer
  #     {:or, atom, type}                 this atom, or the type
  #     {:in, values}                     one of the values
  #     {:list, type}                     a list of the type
  #     {:keys, options, expected}        a keyword list with these options, see Config.Options
  #     {:either, key, key, type}         exactly one of these two keys
  #     {:shorthand, key, type}           this key is required, and its value alone stands for a list with it
  #     {:switch, type, expected}         `false`, which becomes `nil`; `true`, which is `[]`; or the type
  #     an atom                           has its own clauses

  alias ExServiceMeshRouter.Config.{DoctorChecks, Environment, Host, Network, Upstream}

  # All file IO of the VM runs on the dirty IO schedulers.
  @left_to_file_io 2

  # 100 days: a longer time is a mistake in the unit.
  @longest 8_640_000_000

  # The address of a Unix socket has 108 bytes, including the final zero. A second socket ends in ".next".
  @longest_socket_path 102

  @loopback ["127.0.0.0/8", "::1"]
  @address "an address tuple such as {127, 0, 0, 1}"

  def max_workers, do: max(1, :erlang.system_info(:dirty_io_schedulers) - @left_to_file_io)

  @doc "Returns the values of the options by key, with defaults, and all mistakes."
  def read_options(options, given) do
    known = Enum.map(options, & &1.key)

    unknown =
      for {key, value} <- given, key not in known do
        key = if is_atom(key), do: Atom.to_string(key), else: inspect(key)
        %{mistake(key, value, nearest(key, known)) | unknown: true}
      end

    {values, mistakes} =
      Enum.map_reduce(options, unknown, fn %{key: key, type: type} = option, mistakes ->
        value = Keyword.get(given, key, option.default)

        case read(type, value) do
          {:ok, value} ->
            {{key, value}, mistakes}

          :error ->
            {{key, nil}, mistakes ++ [mistake(key, value, expected(type))]}

          {:error, more} ->
            {{key, nil}, mistakes ++ Enum.map(more, &%{&1 | key: "#{key}#{&1.key}"})}
        end
      end)

    {Map.new(values), mistakes}
  end

  defp nearest(key, known) do
    nearest = Enum.max_by(known, &String.jaro_distance(Atom.to_string(&1), key))
    "did you mean #{nearest}? Known keys: #{Enum.join(known, ", ")}"
  end

  defp mistake(key, value, expected),
    do: %{key: key, value: value, expected: expected, unknown: false}

  # `{:ok, value}`, `:error` if expected/1 is the whole message, or `{:error, mistakes}` with subkeys.
  defp read({:or, atom, _type}, atom), do: {:ok, atom}
  defp read({:or, _atom, type}, value), do: read(type, value)
  defp read({:in, values}, value), do: ok_if(value in values, value)
  defp read({:switch, _type, _expected}, false), do: {:ok, nil}
  defp read({:switch, type, _expected}, true), do: read(type, [])
  defp read({:switch, type, _expected}, value), do: read(type, value)

  defp read({:list, type}, list) when is_list(list) do
    read = for item <- list, do: {item, read(type, item)}

    case for {item, :error} <- read, do: mistake("", item, expected(type)) do
      [] -> {:ok, for({_item, {:ok, value}} <- read, do: value)}
      mistakes -> {:error, mistakes}
    end
  end

  defp read({:keys, options, _expected}, value) do
    with true <- Keyword.keyword?(value) or (is_map(value) and not is_struct(value)),
         {values, []} <- read_options(options, Enum.to_list(value)) do
      {:ok, values}
    else
      false -> :error
      {_values, mistakes} -> {:error, Enum.map(mistakes, &%{&1 | key: ".#{&1.key}"})}
    end
  end

  defp read({:either, one, other, type}, value) do
    with {:ok, %{^one => a, ^other => b}} when is_nil(a) == is_nil(b) <- read(type, value),
         do: {:error, [mistake("", value, "either a #{one} or a #{other}")]}
  end

  defp read({:shorthand, key, type}, value) when is_binary(value), do: read(type, [{key, value}])

  defp read({:shorthand, key, type}, value) do
    with {:ok, %{^key => nil}} <- read(type, value),
         do: {:error, [mistake("", value, "a list with a #{key}")]}
  end

  defp read({_unit, %Range{} = range}, value), do: ok_if(value in range, value)

  defp read({unit, min}, value) when is_binary(unit) and is_integer(value),
    do: ok_if(value >= min and (unit != "milliseconds" or value <= @longest), value)

  defp read(:workers, value) when is_integer(value) and value > 0 do
    most = max_workers()

    expected =
      "at most #{most}: each worker takes one of the #{most + @left_to_file_io} dirty IO " <>
        "schedulers, and file IO needs #{@left_to_file_io} (more with the emulator flag +SDio)"

    if value <= most, do: {:ok, value}, else: {:error, [mistake("", value, expected)]}
  end

  defp read(:address, value), do: ok_if(is_tuple(value) and :inet.is_ip_address(value), value)
  defp read(:addresses, value) when value in [:loopback, :any], do: {:ok, value}
  defp read(:addresses, [_ | _] = list), do: read({:list, :address}, list)
  defp read(:addresses, value), do: read(:address, value)

  defp read(:services, services) when is_map(services) or is_list(services) do
    read = Enum.map(services, &read_service/1)

    cond do
      :error in read -> :error
      Enum.any?(read, &is_map/1) -> {:error, Enum.filter(read, &is_map/1)}
      true -> {:ok, Map.new(read)}
    end
  end

  defp read(:grpc, servers) when is_map(servers) or is_list(servers) do
    read = Enum.map(servers, &read_grpc/1)

    cond do
      :error in read -> :error
      Enum.any?(read, &is_map/1) -> {:error, Enum.filter(read, &is_map/1)}
      true -> {:ok, Map.new(read)}
    end
  end

  defp read(:discover, value) when is_boolean(value), do: {:ok, value}

  defp read(:discover, value) do
    options = for key <- [:only, :except], do: %{key: key, type: :applications, default: []}
    with {:ok, _values} <- read({:keys, options, nil}, value), do: {:ok, value}
  end

  defp read(:mesh_services, value) do
    with true <- Keyword.keyword?(value),
         [{key, _endpoints}] when key in [:only, :except] <- value do
      read(:discover, value)
    else
      _ -> :error
    end
  end

  # `{host, port}`; a port of `nil` is the mesh port. The host is an address or a name as text.
  defp read(:advertise, {ip, port}) when port in 1..65_535 do
    case read(:advertise, ip) do
      {:ok, {host, nil}} -> {:ok, {host, port}}
      _ -> :error
    end
  end

  defp read(:advertise, ip) when is_tuple(ip) do
    with {:ok, ip} <- read(:address, ip), do: {:ok, {ip |> :inet.ntoa() |> List.to_string(), nil}}
  end

  defp read(:advertise, text) when is_binary(text) do
    # An IPv6 address without brackets looks like a host with a port.
    text =
      if match?({:ok, {_, _, _, _, _, _, _, _}}, Network.parse_address(text)),
        do: "[#{text}]",
        else: text

    case Host.parse(text) do
      {:ok, host, port} when host != "" and port != 0 ->
        {:ok, {String.trim(String.trim(host, "["), "]"), port}}

      _ ->
        :error
    end
  end

  defp read(:prefer, :none), do: {:ok, nil}
  defp read(:prefer, {:local, more}) when more in 0..1_000_000, do: {:ok, more}

  defp read(:applications, value), do: ok_if(atoms?(value), value)

  defp read(:private_listeners, value),
    do: ok_if(value in [:auto, :never, :all] or atoms?(value), value)

  defp read(:in_vm, value), do: ok_if(value in [:auto, false] or atoms?(value), value)

  defp read(:endpoints, value), do: ok_if(atoms?(value), value)

  defp read(:host, value), do: Host.normalise(value)
  defp read(:domain, value) when value in [nil, false], do: {:ok, nil}

  defp read(:domain, value) do
    with {:ok, host} <- Host.normalise(value), do: ok_if(not Host.address?(host), host)
  end

  defp read(:cidr, value) do
    with {:ok, network} <- Network.parse(value), do: {:ok, Network.to_string(network)}
  end

  # The networks that may see the index, always including loopback.
  defp read(:index, :auto), do: read(:index, Environment.development?())
  defp read(:index, false), do: {:ok, nil}
  defp read(:index, true), do: read(:index, [])

  defp read(:index, value) do
    options = [%{key: :allow, type: {:list, :cidr}, default: []}]

    with {:ok, %{allow: allowed}} <- read({:keys, options, nil}, value),
         do: {:ok, Enum.map(@loopback ++ allowed, &Network.parse!/1)}
  end

  # The names of the checks that are on.
  defp read(:doctor, false), do: {:ok, []}
  defp read(:doctor, true), do: read(:doctor, [])

  defp read(:doctor, value) do
    options = [%{key: :except, type: {:list, {:in, DoctorChecks.names()}}, default: []}]

    with {:ok, %{except: left_out}} <- read({:keys, options, nil}, value),
         do: {:ok, DoctorChecks.names() -- left_out}
  end

  defp read(:share, value) when value in [false, nil], do: {:ok, 0.0}
  defp read(:share, true), do: {:ok, 1.0}
  defp read(:share, value) when is_number(value), do: ok_if(value >= 0 and value <= 1, value / 1)
  defp read(:path, value), do: ok_if(is_binary(value) and value != "", value)

  defp read(:socket_path, value) do
    ok_if(
      is_binary(value) and Path.type(value) == :absolute and not String.ends_with?(value, "/") and
        byte_size(value) <= @longest_socket_path,
      value
    )
  end

  defp read(_type, _value), do: :error

  defp read_service({host, upstreams}) do
    case {Host.normalise(host), Upstream.parse(upstreams)} do
      {{:ok, host}, {:ok, upstreams}} -> {host, upstreams}
      {:error, _} -> mistake("", host, "a host name without a port as the key")
      {_, {:error, part}} -> mistake("[#{inspect(host)}]", part, Upstream.accepted())
    end
  end

  defp read_service(_other), do: :error

  defp read_grpc({server, host}) when is_atom(server) do
    case Host.normalise(host) do
      {:ok, host} -> {server, host}
      :error -> mistake("[#{inspect(server)}]", host, expected(:host))
    end
  end

  defp read_grpc(_other), do: :error

  defp ok_if(true, value), do: {:ok, value}
  defp ok_if(false, _value), do: :error

  defp atoms?(value), do: is_list(value) and Enum.all?(value, &is_atom/1)

  @doc "Describes the accepted values."
  def expected({:or, nil, type}), do: "#{expected(type)}, or nil"
  def expected({:or, atom, type}), do: "#{expected(type)} or #{inspect(atom)}"
  def expected({:in, values}), do: values |> Enum.map(&inspect/1) |> alternatives()
  def expected({:list, type}), do: "a list of #{expected(type)}"
  def expected({:keys, _options, expected}), do: expected
  def expected({:either, _one, _other, type}), do: expected(type)
  def expected({:shorthand, _key, type}), do: expected(type)
  def expected({:switch, _type, expected}), do: expected
  def expected({unit, %Range{} = range}), do: "#{unit} from #{range.first} to #{range.last}"
  def expected({unit, min}), do: "#{unit} (#{min} or more)"
  def expected(:workers), do: "an integer from 1 to #{max_workers()}"
  def expected(:address), do: @address
  def expected(:addresses), do: ":loopback, :any, #{@address}, or a list of tuples"
  def expected(:services), do: ~s|a map such as %{"legacy.local" => "http://127.0.0.1:9001"}|
  def expected(:grpc), do: ~s|a map such as %{MyApp.GRPC.Endpoint => "grpc.local"}|
  def expected(:discover), do: "true, false, or [only: [...], except: [...]]"
  def expected(:mesh_services), do: "[only: [...]] or [except: [...]] with endpoint modules,"

  def expected(:advertise),
    do: ~s|an address such as "10.0.0.5" or "10.0.0.5:4600", or {{10, 0, 0, 5}, 4600}|

  def expected(:prefer), do: "{:local, 2} or :none"
  def expected(:applications), do: "a list of applications or endpoint modules"
  def expected(:private_listeners), do: ":auto, :never, :all, or a list of endpoint modules"
  def expected(:in_vm), do: "false, :auto, or a list of endpoint modules"
  def expected(:endpoints), do: "a list of endpoint modules"
  def expected(:host), do: "a host name without a port"
  def expected(:domain), do: ~s|a domain such as "localhost", or nil|
  def expected(:cidr), do: ~s|addresses or CIDR blocks as strings, such as "10.0.0.0/8"|
  def expected(:index), do: ~s|:auto, true, false, or [allow: ["10.0.0.0/8", ...]]|
  def expected(:doctor), do: "true, false, or [except: [:local_names, ...]]"
  def expected(:share), do: "a share of the requests from 0.0 to 1.0, or false"
  def expected(:path), do: "the path of a file"

  def expected(:socket_path),
    do: "an absolute path of a file, at most #{@longest_socket_path} bytes"

  defp alternatives([one]), do: one
  defp alternatives([one, last]), do: "#{one} or #{last}"
  defp alternatives([first | rest]), do: "#{first}, #{alternatives(rest)}"

  @doc "Returns the options below an option of this type."
  def members({:keys, options, _expected}), do: options
  def members({:either, _one, _other, type}), do: members(type)
  def members({:shorthand, _key, type}), do: members(type)
  def members({:switch, type, _expected}), do: members(type)
  def members(_type), do: []

  @doc "Returns the typespec, as quoted code."
  def spec({:or, atom, type}), do: union([atom, spec(type)])
  def spec({:in, values}), do: union(values)
  def spec({:list, type}), do: [spec(type)]

  def spec({:keys, options, _expected}),
    do: [union(for(it <- options, do: {it.key, spec(it.type)}))]

  def spec({:either, _one, _other, type}), do: spec(type)
  def spec({:shorthand, _key, type}), do: union([quote(do: String.t()), spec(type)])
  def spec({:switch, type, _expected}), do: union([quote(do: boolean()), spec(type)])
  def spec({_unit, %Range{} = range}), do: quote(do: unquote(range.first)..unquote(range.last))
  def spec({_unit, 0}), do: quote(do: non_neg_integer())
  def spec({_unit, 1}), do: quote(do: pos_integer())
  def spec(:workers), do: quote(do: pos_integer())
  def spec(:address), do: quote(do: :inet.ip_address())

  def spec(:addresses),
    do: quote(do: :loopback | :any | :inet.ip_address() | [:inet.ip_address(), ...])

  def spec(:services) do
    upstreams = quote(do: String.t() | [String.t()])
    quote(do: %{String.t() => unquote(upstreams)} | [{String.t(), unquote(upstreams)}])
  end

  def spec(:grpc), do: quote(do: %{module() => String.t()} | [{module(), String.t()}])
  def spec(:discover), do: quote(do: boolean() | [only: [atom()], except: [atom()]])
  def spec(:mesh_services), do: quote(do: [only: [module()], except: [module()]])

  def spec(:advertise) do
    quote(
      do:
        String.t()
        | :inet.ip_address()
        | {String.t() | :inet.ip_address(), :inet.port_number()}
    )
  end

  def spec(:prefer), do: quote(do: {:local, non_neg_integer()} | :none)
  def spec(:private_listeners), do: quote(do: :auto | :never | :all | [module()])
  def spec(:in_vm), do: quote(do: :auto | false | [module()])
  def spec(:endpoints), do: quote(do: [module()])
  def spec(:domain), do: quote(do: String.t() | false | nil)
  def spec(:index), do: quote(do: :auto | boolean() | [allow: [String.t()]])
  def spec(:doctor), do: quote(do: boolean() | [except: [atom()]])
  def spec(:share), do: quote(do: boolean() | number())
  def spec(text) when text in [:host, :cidr, :path, :socket_path], do: quote(do: String.t())

  defp union(types),
    do: types |> Enum.reverse() |> Enum.reduce(&quote(do: unquote(&1) | unquote(&2)))
end
