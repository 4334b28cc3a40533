defmodule ExServiceMeshRouter.Plugs.ForwardedReader do
  @moduledoc false
  # Reads the forwarded fields that the gateway writes. A missing, repeated or malformed field is `nil`.
  # Each request has them, so what is usual takes no function of String, which knows Unicode.

  alias ExServiceMeshRouter.Config.Network
  alias ExServiceMeshRouter.Gateway.TrustedProxies

  # The address of an unknown client: the unspecified address (RFC 1122 section 3.2.1.3).
  @unknown {0, 0, 0, 0}

  @doc """
  Returns the last address of `X-Forwarded-For` that is not a trusted proxy, or the first one if all
  are trusted; `nil` without the field.

  The list is read from its end, because a client can forge the beginning. At an unreadable entry, the
  client is the proxy that passed the entry on, or 0.0.0.0 if that proxy is on loopback, which
  applications may trust.
  """
  def client(headers) do
    with value when is_binary(value) <- one(headers, "x-forwarded-for") do
      value
      |> :binary.split(",", [:global])
      |> :lists.reverse()
      |> walk(TrustedProxies.all(), nil)
    end
  end

  defp walk([], _trusted, proxy), do: proxy || @unknown

  defp walk([entry | rest], trusted, proxy) do
    case address(entry) do
      :empty -> walk(rest, trusted, proxy)
      :error -> if proxy == nil or loopback?(proxy), do: @unknown, else: proxy
      {:ok, ip} -> if Network.member?(trusted, ip), do: walk(rest, trusted, ip), else: ip
    end
  end

  defp address(" " <> entry), do: address(entry)

  defp address(entry) do
    with :error <- Network.parse_address(entry),
         :error <- entry |> String.trim() |> odd_address() do
      :error
    else
      {:ok, ip} -> {:ok, Network.unmap(ip)}
      :empty -> :empty
    end
  end

  # Some proxies add the port: `192.0.2.1:4711`, `[2001:db8::1]:4711`.
  defp odd_address(""), do: :empty

  defp odd_address(text) do
    with :error <- Network.parse_address(text),
         do: text |> without_port() |> Network.parse_address()
  end

  defp without_port(text) do
    case Regex.run(~r/\A(?:\[([^\]]*)\]|([0-9.]+))(?::[0-9]{1,5})?\z/, text) do
      [_, ipv6] -> ipv6
      [_, "", ipv4] -> ipv4
      nil -> ""
    end
  end

  defp loopback?({127, _, _, _}), do: true
  defp loopback?(ip), do: ip == {0, 0, 0, 0, 0, 0, 0, 1}

  def scheme(headers) do
    case one(headers, "x-forwarded-proto") do
      "http" -> :http
      "https" -> :https
      _ -> nil
    end
  end

  @doc "Returns the host without its port, which has a separate field."
  def host(headers) do
    case one(headers, "x-forwarded-host") do
      "[" <> _ = literal -> literal |> :binary.split("]") |> hd() |> Kernel.<>("]")
      host when is_binary(host) and host != "" -> host |> :binary.split(":") |> hd()
      _ -> nil
    end
  end

  def port(headers) do
    with value when is_binary(value) <- one(headers, "x-forwarded-port"), do: port(value, 0)
  end

  defp port("", port) when port in 1..65_535, do: port

  defp port(<<digit, rest::binary>>, port) when digit in ?0..?9 and port <= 65_535,
    do: port(rest, port * 10 + digit - ?0)

  defp port(_text, _port), do: nil

  defp one([{name, value} | rest], name),
    do: if(:lists.keymember(name, 1, rest), do: nil, else: value)

  defp one([_other | rest], name), do: one(rest, name)
  defp one([], _name), do: nil
end
