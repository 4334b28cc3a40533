defmodule ExServiceMeshRouter.Config.Network do
  @moduledoc false
  # CIDR blocks (RFC 4632, RFC 4291 section 2.3): `{bits of the address, prefix length, size}`.

  @doc "Reads `10.0.0.0/8`, or an address, which is a block of one."
  def parse(text) when is_binary(text) do
    {address, prefix} =
      case String.split(text, "/", parts: 2) do
        [address, prefix] -> {address, prefix}
        [address] -> {address, nil}
      end

    with {:ok, ip} <- :inet.parse_strict_address(to_charlist(address)),
         {bits, size} = bits(ip),
         {:ok, length} <- prefix(prefix, size) do
      {:ok, {bits, length, size}}
    else
      _ -> :error
    end
  end

  def parse(_other), do: :error

  def parse!(text) do
    {:ok, network} = parse(text)
    network
  end

  @doc "The canonical text of a block."
  def to_string({bits, length, size}), do: "#{:inet.ntoa(tuple(bits, size))}/#{length}"

  @doc "Whether an address is in one of the blocks."
  def member?(networks, ip) do
    {bits, size} = bits(ip)

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
