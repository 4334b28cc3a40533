defmodule ExServiceMeshRouter.Config.Host do
  @moduledoc false
  # Parses and compares hosts. The routing table has them in lower case, without port and trailing
  # dot, IPv6 in brackets.
  #
  # `parse/1` accepts what a client may send, and must agree byte for byte with the data plane
  # (native/mesh_wire/src/host.rs; a property test compares them). `normalise/1` is for configured
  # hosts and stricter: RFC 3986 allows characters, such as a comma, that are a mistake there.

  @longest_name 253
  # The limit of the data plane.
  @longest 255

  @doc "Parses a `Host` field: `{:ok, host, port | nil}`, or `:error`."
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

  # RFC 3986 section 3.2.2, without empty labels.
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

  @doc "Normalises a configured host: `{:ok, host}`, or `:error`, also for a host with a port."
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

  @doc "Returns the host and its parent domains: `a.b.c`, `b.c`, `c`. An address has no parents."
  def suffixes(host) do
    if address?(host) do
      [host]
    else
      labels = String.split(host, ".")
      for n <- 0..(length(labels) - 1), do: labels |> Enum.drop(n) |> Enum.join(".")
    end
  end

  # The least String.jaro_distance/2: one letter is wrong, missing, or added.
  @similar 0.75

  @doc "Returns the most similar of the known hosts, with the tenant of the one asked for, or `nil`."
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

  # `t1.auht.localhost` means `t1.auth.localhost`, not `auth.localhost`.
  defp tenant(asked, host) do
    extra = length(String.split(asked, ".")) - length(String.split(host, "."))

    if extra > 0 do
      labels = asked |> String.split(".") |> Enum.take(extra)
      [Enum.join(labels ++ [host], ".")]
    else
      []
    end
  end

  @doc "Returns whether a normalised host is an IP address."
  def address?("[" <> _), do: true
  def address?(host), do: match?({:ok, _}, ipv4(host))

  # Top-level domains that are reserved or used in private networks.
  @private ~w(localhost local test internal lan home invalid example localdomain)

  @doc "Returns whether a host is a name that cannot be registered on the internet."
  def private?(host) do
    case String.split(host, ".") do
      [_alone] -> true
      labels -> List.last(labels) in @private
    end
  end

  # Four decimal numbers only: `inet` also accepts octal and hexadecimal ones, and fewer.
  defp ipv4(text) do
    with {:ok, ip} <- text |> :binary.bin_to_list() |> :inet.parse_ipv4strict_address(),
         ^text <- ip |> :inet.ntoa() |> List.to_string() do
      {:ok, ip}
    else
      _ -> :error
    end
  end

  # `inet` also accepts zones (`fe80::1%eth0`), and octal numbers in a trailing IPv4 address.
  defp ipv6(text) do
    last = text |> String.split(":") |> List.last()

    if String.contains?(text, "%") or (String.contains?(last, ".") and ipv4(last) == :error),
      do: :error,
      else: text |> :binary.bin_to_list() |> :inet.parse_ipv6strict_address()
  end

  # RFC 5952, as in the data plane; `inet` formats `::1:1` as `::0.1.0.1`.
  defp text({0, 0, 0, 0, 0, 0, 0, 0}), do: "::"
  defp text({0, 0, 0, 0, 0, 0, 0, low}), do: "::" <> hex(low)
  defp text({0, 0, 0, 0, 0, 0, high, low}), do: "::#{hex(high)}:#{hex(low)}"
  defp text(ip), do: :inet.ntoa(ip)

  defp hex(group), do: group |> Integer.to_string(16) |> String.downcase()
end
