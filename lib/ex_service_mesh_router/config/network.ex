defmodule ExServiceMeshRouter.Config.Network do
  @moduledoc false
  # Parses CIDR blocks (RFC 4632, RFC 4291 section 2.3) to `{bits of the address, prefix length, size}`.
  # An IPv4-mapped IPv6 address (`::ffff:127.0.0.1`) is the IPv4 address.

  @doc "Parses a block such as `10.0.0.0/8`; an address is a block of one."
  def parse(text) when is_binary(text) do
    {address, prefix} =
      case String.split(text, "/", parts: 2) do
        [address, prefix] -> {address, prefix}
        [address] -> {address, nil}
      end

    with {:ok, ip} <- parse_address(address),
         {bits, size} = bits(ip),
         {:ok, length} <- prefix(prefix, size) do
      {:ok, unmap_block({bits, length, size})}
    else
      _ -> :error
    end
  end

  def parse(_other), do: :error

  @doc "Parses an address. Refuses octal numbers and zones, which `inet` accepts."
  def parse_address(text), do: with(:error <- dotted(text, nil, []), do: parse_ipv6(text))

  # Not `inet`, which takes ten times as long: each request has an address.
  defp dotted(<<digit, rest::binary>>, nil, parts) when digit in ?0..?9,
    do: dotted(rest, digit - ?0, parts)

  defp dotted(<<digit, rest::binary>>, part, parts) when digit in ?0..?9 and part in 1..25,
    do: dotted(rest, part * 10 + digit - ?0, parts)

  defp dotted(<<?., rest::binary>>, part, parts) when part in 0..255,
    do: dotted(rest, nil, [part | parts])

  defp dotted("", d, [c, b, a]) when d in 0..255, do: {:ok, {a, b, c, d}}
  defp dotted(_text, _part, _parts), do: :error

  defp parse_ipv6(text) do
    case text |> :binary.bin_to_list() |> :inet.parse_ipv6strict_address() do
      {:ok, ip} -> if String.contains?(text, "%"), do: :error, else: {:ok, ip}
      {:error, _} -> :error
    end
  end

  @doc "Maps `::ffff:127.0.0.1` to 127.0.0.1 and returns other addresses unchanged."
  def unmap({0, 0, 0, 0, 0, 0xFFFF, high, low}),
    do: {div(high, 256), rem(high, 256), div(low, 256), rem(low, 256)}

  def unmap(ip), do: ip

  @mapped 0xFFFF_0000_0000

  defp unmap_block({bits, length, 128}) when length >= 96 and bits >= @mapped do
    if Bitwise.bsr(bits, 32) == 0xFFFF,
      do: {Bitwise.band(bits, 0xFFFF_FFFF), length - 96, 32},
      else: {bits, length, 128}
  end

  defp unmap_block(block), do: block

  def parse!(text) do
    {:ok, network} = parse(text)
    network
  end

  @doc "Formats a block."
  def to_string({bits, length, size}), do: "#{:inet.ntoa(tuple(bits, size))}/#{length}"

  @doc "Returns whether one of the blocks contains the address."
  def member?([], _ip), do: false

  def member?(networks, ip) do
    {bits, size} = ip |> unmap() |> bits()

    Enum.any?(networks, fn {network, length, network_size} ->
      network_size == size and
        Bitwise.bsr(network, size - length) == Bitwise.bsr(bits, size - length)
    end)
  end

  defp prefix(nil, size), do: {:ok, size}

  defp prefix(text, size) do
    case Integer.parse(text) do
      {length, ""} when length >= 0 and length <= size -> {:ok, length}
      _ -> :error
    end
  end

  defp bits({a, b, c, d}) do
    <<bits::32>> = <<a, b, c, d>>
    {bits, 32}
  end

  defp bits(ip) when tuple_size(ip) == 8 do
    <<bits::128>> = for part <- Tuple.to_list(ip), into: <<>>, do: <<part::16>>
    {bits, 128}
  end

  defp tuple(bits, 32) do
    <<a, b, c, d>> = <<bits::32>>
    {a, b, c, d}
  end

  defp tuple(bits, 128) do
    List.to_tuple(for(<<(part::16 <- <<bits::128>>)>>, do: part))
  end
end
