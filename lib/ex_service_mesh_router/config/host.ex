defmodule ExServiceMeshRouter.Config.Host do
  @moduledoc false
  # Hosts as the routing table knows them: lower case, no port, no trailing dot, IPv6 in brackets.
  #
  # `parse/1` reads what a client may send and is the data plane's notion, byte for byte
  # (native/mesh_wire/src/host.rs; a property test holds the two together): RFC 3986 has more
  # characters than names have. `normalise/1` is for what is configured, where a comma is a slip.

  @longest_name 253
  # Of the data plane.
  @longest 255

  @doc "The host and the port of a `Host` field, `{:ok, host, port | nil}`, or `:error`."
  def parse("[" <> _ = field) do
    with [_, address, port] <- Regex.run(~r/\A\[([^\]]*)\](.*)\z/s, field),
         {:ok, ip} <- ipv6(address),
         {:ok, port} <- port(port) do
      {:ok, "[#{text(ip)}]", port}
    else
      _ -> :error
    end
  end

  def parse(field) when is_binary(field) do
    {name, port} = split(field)
    name = name |> String.replace_suffix(".", "") |> String.downcase(:ascii)

    with true <- byte_size(name) <= @longest and reg_name?(name),
         {:ok, port} <- port(port) do
      {:ok, name, port}
    else
      _ -> :error
    end
  end

  def parse(_other), do: :error

  defp split(field) do
    case String.split(field, ":", parts: 2) do
      [name, port] -> {name, ":" <> port}
      [name] -> {name, ""}
    end
  end

  # RFC 3986 section 3.2.2, in labels of which none is empty.
  @label "(?:[a-z0-9_~!$&'()*+,;=-]|%[0-9a-f]{2})+"
  @reg_name ~r/\A#{@label}(?:\.#{@label})*\z/

  defp reg_name?(name), do: name =~ @reg_name

  defp port(text) when text in ["", ":"], do: {:ok, nil}

  defp port(":" <> digits) do
    with true <- digits =~ ~r/\A[0-9]{1,5}\z/,
         number when number <= 65_535 <- String.to_integer(digits) do
      {:ok, number}
    else
      _ -> :error
    end
  end

  defp port(_other), do: :error

  @doc "`{:ok, host}`, or `:error` for what is no host name (a name with a port is none)."
  def normalise(host) do
    with {:ok, name, nil} <- parse(host),
         false <- String.ends_with?(host, ":"),
         true <- name =~ ~r/\A[a-z0-9_.-]+\z/ or String.starts_with?(name, "["),
         true <- byte_size(name) <= @longest_name do
      {:ok, name}
    else
      _ -> :error
    end
  end

  @doc "The host itself and everything above it: `a.b.c`, `b.c`, `c`. An address is only itself."
  def suffixes(host) do
    if address?(host) do
      [host]
    else
      labels = String.split(host, ".")
      for n <- 0..(length(labels) - 1), do: labels |> Enum.drop(n) |> Enum.join(".")
    end
  end

  # By String.jaro_distance/2: a letter wrong, missing, or too many.
  @similar 0.75

  @doc "The known host that is most like the one asked for, if any is, with the tenant kept."
  def nearest(asked, hosts) do
    candidates =
      for host <- hosts,
          candidate <- [host | tenant(asked, host)],
          candidate != asked,
          do: {String.jaro_distance(candidate, asked), candidate}

    case Enum.max(candidates, fn -> {0.0, nil} end) do
      {distance, host} when distance >= @similar -> host
      _ -> nil
    end
  end

  # `t1.auht.localhost` was not meant to be `auth.localhost`.
  defp tenant(asked, host) do
    extra = length(String.split(asked, ".")) - length(String.split(host, "."))

    if extra > 0 do
      labels = asked |> String.split(".") |> Enum.take(extra)
      [Enum.join(labels ++ [host], ".")]
    else
      []
    end
  end

  @doc "Whether a normalised host is an address and not a name."
  def address?("[" <> _), do: true
  def address?(host), do: match?({:ok, _}, ipv4(host))

  # Reserved, or in use for networks of one's own; a name without a dot is no stranger's either.
  @private ~w(localhost local test internal lan home invalid example localdomain)

  @doc "Whether a host is a name that nobody on the internet can own."
  def private?(host) do
    case String.split(host, ".") do
      [_alone] -> true
      labels -> List.last(labels) in @private
    end
  end

  # Four decimal numbers: `inet` takes octal and hexadecimal ones as well, and fewer of them.
  defp ipv4(text) do
    with {:ok, ip} <- text |> :binary.bin_to_list() |> :inet.parse_ipv4strict_address(),
         ^text <- ip |> :inet.ntoa() |> List.to_string() do
      {:ok, ip}
    else
      _ -> :error
    end
  end

  # `inet` accepts zones (`fe80::1%eth0`), and octal numbers in an IPv4 address at the end.
  defp ipv6(text) do
    last = text |> String.split(":") |> List.last()

    if String.contains?(text, "%") or (String.contains?(last, ".") and ipv4(last) == :error),
      do: :error,
      else: text |> :binary.bin_to_list() |> :inet.parse_ipv6strict_address()
  end

  # RFC 5952, as the data plane writes it; `inet` writes `::1:1` as `::0.1.0.1`.
  defp text({0, 0, 0, 0, 0, 0, 0, 0}), do: "::"
  defp text({0, 0, 0, 0, 0, 0, 0, low}), do: "::" <> hex(low)
  defp text({0, 0, 0, 0, 0, 0, high, low}), do: "::#{hex(high)}:#{hex(low)}"
  defp text(ip), do: :inet.ntoa(ip)

  defp hex(group), do: group |> Integer.to_string(16) |> String.downcase()
end
