defmodule ExServiceMeshRouter.Config.Upstream do
  @moduledoc false
  # Where a service listens. Written by users as "http://127.0.0.1:9001", "http://[::1]:9001",
  # "http://somehost:9001" or "unix:/run/app.sock"; kept as one of
  #
  #     {:tcp, ip, port} | {:name, "somehost", port} | {:unix, path} | {:loopback, port}
  #
  # The last one is an endpoint that is bound to `::`: it is at 127.0.0.1 and at ::1, or only at one
  # of them where IPv6 is switched off (containers) or its socket takes no IPv4.

  @accepted ~s|"http://HOST:PORT", "unix:/PATH", or a list of these|

  # A Unix socket's address has 108 bytes, the last of them a zero.
  @max_path 107

  @loopback {127, 0, 0, 1}

  @doc "What parse/1 accepts, in words."
  def accepted, do: @accepted

  @doc "`{:ok, upstreams}`, or `{:error, part}` with the part that is wrong."
  def parse([]), do: {:error, []}

  def parse(list) when is_list(list) do
    parsed = Enum.map(list, &{&1, parse_one(&1)})

    case Enum.find(parsed, &match?({_text, :error}, &1)) do
      nil -> {:ok, for({_text, {:ok, upstream}} <- parsed, do: upstream)}
      {text, :error} -> {:error, text}
    end
  end

  def parse(text), do: parse([text])

  defp parse_one("unix:" <> path) do
    path = String.replace_prefix(path, "//", "")

    if String.starts_with?(path, "/") and byte_size(path) <= @max_path and
         not String.contains?(path, "\0"),
       do: {:ok, {:unix, path}},
       else: :error
  end

  defp parse_one("http://" <> _ = url) do
    case URI.new(url) do
      {:ok, %URI{userinfo: nil, query: nil, fragment: nil, path: path} = uri}
      when path in [nil, "/"] ->
        host(uri.host, uri.port)

      _ ->
        :error
    end
  end

  defp parse_one(_other), do: :error

  defp host(host, port) when is_binary(host) and host != "" and port in 1..65_535 do
    case :inet.parse_strict_address(to_charlist(host)) do
      {:ok, ip} ->
        {:ok, {:tcp, ip, port}}

      {:error, _} ->
        if host =~ ~r/\A[A-Za-z0-9_.-]+\z/, do: {:ok, {:name, host, port}}, else: :error
    end
  end

  defp host(_host, _port), do: :error

  @doc """
  An upstream from what an endpoint says it is bound to: `{ip, port}`, `{:local, path}`, or the map
  of older versions of Thousand Island. `:error` for everything else.
  """
  def from_bound({:local, path}) when is_binary(path) or is_list(path),
    do: {:ok, {:unix, IO.chardata_to_string(path)}}

  def from_bound({ip, port}) when is_tuple(ip) and port in 1..65_535 do
    if :inet.is_ip_address(ip), do: {:ok, reachable(ip, port)}, else: :error
  end

  def from_bound(%{address: ip, port: port}), do: from_bound({ip, port})
  def from_bound(_other), do: :error

  # What listens on all addresses is reached on this machine's own.
  defp reachable({0, 0, 0, 0}, port), do: {:tcp, @loopback, port}
  defp reachable({0, 0, 0, 0, 0, 0, 0, 0}, port), do: {:loopback, port}

  defp reachable({0, 0, 0, 0, 0, 0xFFFF, high, low}, port) do
    reachable({div(high, 256), rem(high, 256), div(low, 256), rem(low, 256)}, port)
  end

  defp reachable(ip, port), do: {:tcp, ip, port}

  @doc "The terms of the data plane. Names have been resolved before."
  def to_native({:tcp, ip, port}), do: {:tcp, ip |> :inet.ntoa() |> List.to_string(), port}
  def to_native({:loopback, port}), do: {:loopback, port}
  def to_native({:unix, path}), do: {:unix, path}

  @doc "As a user writes it."
  def to_string({:unix, path}), do: "unix:" <> path
  def to_string({:loopback, port}), do: "http://localhost:#{port}"
  def to_string({:name, host, port}), do: "http://#{host}:#{port}"

  def to_string({:tcp, ip, port}) when tuple_size(ip) == 8,
    do: "http://[#{:inet.ntoa(ip)}]:#{port}"

  def to_string({:tcp, ip, port}), do: "http://#{:inet.ntoa(ip)}:#{port}"
end
