defmodule ExServiceMeshRouter.Host do
  @moduledoc false
  # Host names as the routing table knows them: lower case, no trailing dot, IPv6 in brackets. The
  # data plane normalises what clients send in the same way.

  @max_bytes 253

  @doc "`{:ok, host}`, or `:error` for what is no host name (a name with a port is none)."
  def normalise("[" <> _ = literal) do
    with [_, address] <- Regex.run(~r/^\[([0-9A-Fa-f:.]+)\]$/, literal),
         {:ok, ip} <- :inet.parse_ipv6strict_address(to_charlist(address)) do
      {:ok, "[#{:inet.ntoa(ip)}]"}
    else
      _ -> :error
    end
  end

  def normalise(name) when is_binary(name) do
    host = name |> String.downcase(:ascii) |> String.trim_trailing(".")

    if byte_size(host) <= @max_bytes and host =~ ~r/\A[a-z0-9_-]+(\.[a-z0-9_-]+)*\z/,
      do: {:ok, host},
      else: :error
  end

  def normalise(_other), do: :error

  @doc "A host as it stands in a `Host` field, without its port."
  def without_port(host), do: String.replace(host, ~r/:[0-9]*\z/, "")

  @doc "The host itself and everything above it: `a.b.c`, `b.c`, `c`. An address is only itself."
  def suffixes(host) do
    if address?(host) do
      [host]
    else
      labels = String.split(host, ".")
      for n <- 0..(length(labels) - 1), do: labels |> Enum.drop(n) |> Enum.join(".")
    end
  end

  @doc "Whether a normalised host is an address and not a name."
  def address?("[" <> _), do: true
  def address?(host), do: match?({:ok, _}, :inet.parse_ipv4strict_address(to_charlist(host)))
end
