defmodule ExServiceMeshRouter.Config.Upstream do
  @moduledoc false
  # Parses and formats upstreams, the places where services listen. Users write
  # "http://127.0.0.1:9001", "http://[::1]:9001", "http://somehost:9001" or "unix:/run/app.sock", and
  # "h2c://127.0.0.1:50051" or "h2c+unix:/run/grpc.sock" for an endpoint that speaks HTTP/2; the term is one of
  #
  #     %{kind: :tcp, ip: ip, port: port}
  #     %{kind: :name, host: "somehost", port: port}
  #     %{kind: :unix, path: path}
  #     %{kind: :loopback, port: port}
  #     %{kind: :peer, id: id, node: "b@host", state: state}
  #
  # All but a peer have `protocol: :http2` if the endpoint speaks HTTP/2.
  #
  # Other modules match only the keys that they need, so that an upstream may have more (a weight, a node).
  # An upstream that is an endpoint of this node may have `dispatchers: [pid]`, see InVm.
  # `:loopback` is an endpoint that is bound to `::`. It is reachable at 127.0.0.1 and ::1, or at only
  # one of them if IPv6 is off (containers) or its socket does not accept IPv4. `:peer` is the gateway of
  # another node, see Registry.Replicas; the data plane knows its address by the id.

  alias ExServiceMeshRouter.Config.Host

  @accepted ~s|"http://HOST:PORT", "unix:/PATH", for HTTP/2 (gRPC) "h2c://HOST:PORT" or "h2c+unix:/PATH", or a list of these|

  # The address of a Unix socket has 108 bytes, including the final zero.
  @max_path 107

  @loopback {127, 0, 0, 1}

  def tcp(ip, port), do: %{kind: :tcp, ip: ip, port: port}
  def unix(path), do: %{kind: :unix, path: path}

  @doc "Marks an upstream that speaks HTTP/2."
  def http2(upstream), do: Map.put(upstream, :protocol, :http2)

  @doc "Describes what parse/1 accepts."
  def accepted, do: @accepted

  @doc "Parses an upstream or a list: `{:ok, upstreams}`, or `{:error, part}` with the wrong part."
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
       do: {:ok, unix(path)},
       else: :error
  end

  defp parse_one("http://" <> _ = url), do: url(url)

  # A URI of an unknown scheme has no default port, and an h2c server no usual one.
  defp parse_one("h2c://" <> _ = url), do: url |> url() |> over_http2()
  defp parse_one("h2c+unix:" <> path), do: over_http2(parse_one("unix:" <> path))

  defp parse_one(_other), do: :error

  defp url(url) do
    case URI.new(url) do
      {:ok, %URI{userinfo: nil, query: nil, fragment: nil, path: path} = uri}
      when path in [nil, "/"] ->
        host(uri.host, uri.port)

      _ ->
        :error
    end
  end

  defp over_http2({:ok, upstream}), do: {:ok, http2(upstream)}
  defp over_http2(:error), do: :error

  defp host(host, port) when is_binary(host) and host != "" and port in 1..65_535 do
    case :inet.parse_strict_address(to_charlist(host)) do
      {:ok, ip} ->
        {:ok, tcp(ip, port)}

      {:error, _} ->
        with {:ok, host} <- Host.normalise(host),
             do: {:ok, %{kind: :name, host: host, port: port}}
    end
  end

  defp host(_host, _port), do: :error

  @doc """
  Makes an upstream of the address that an endpoint is bound to: `{ip, port}`, `{:local, path}`, or
  the map of older versions of Thousand Island. `:error` for all other terms.
  """
  def from_bound({:local, path}) when is_binary(path) or is_list(path),
    do: {:ok, path |> IO.chardata_to_string() |> unix()}

  def from_bound({ip, port}) when is_tuple(ip) and port in 1..65_535 do
    if :inet.is_ip_address(ip), do: {:ok, reachable(ip, port)}, else: :error
  end

  def from_bound(%{address: ip, port: port}), do: from_bound({ip, port})
  def from_bound(_other), do: :error

  # A server that listens on every address is reachable on loopback.
  defp reachable({0, 0, 0, 0}, port), do: tcp(@loopback, port)
  defp reachable({0, 0, 0, 0, 0, 0, 0, 0}, port), do: %{kind: :loopback, port: port}

  defp reachable({0, 0, 0, 0, 0, 0xFFFF, high, low}, port) do
    reachable({div(high, 256), rem(high, 256), div(low, 256), rem(low, 256)}, port)
  end

  defp reachable(ip, port), do: tcp(ip, port)

  @doc "Adds the processes that take requests for the upstream in place of its socket."
  def put_dispatchers(upstream, []), do: upstream
  def put_dispatchers(upstream, pids), do: Map.put(upstream, :dispatchers, pids)

  @doc "Returns the upstream without them: two upstreams are the same place if only these differ."
  def place(upstream), do: Map.delete(upstream, :dispatchers)

  @doc "Returns the processes that take requests for the upstream."
  def dispatchers(upstream), do: Map.get(upstream, :dispatchers, [])

  @doc "Replaces a named upstream by one upstream per known address of the name."
  def resolve(%{kind: :name} = upstream, addresses) do
    {host, upstream} = Map.pop(upstream, :host)
    for ip <- Map.get(addresses, host, []), do: Map.merge(upstream, %{kind: :tcp, ip: ip})
  end

  # The data plane itself sees which peers are suspect. A draining peer gets no requests.
  def resolve(%{kind: :peer, state: :draining}, _addresses), do: []

  def resolve(%{kind: :peer} = peer, _addresses) do
    last_resort = peer.state == :last_resort
    [%{kind: :peer, id: peer.id, node: peer.node, last_resort: last_resort}]
  end

  def resolve(upstream, _addresses), do: [upstream]

  @doc "Returns the term for the data plane. Names must be resolved before."
  def to_native(%{ip: ip} = upstream),
    do: %{upstream | ip: ip |> :inet.ntoa() |> List.to_string()}

  def to_native(%{kind: :peer} = upstream), do: Map.delete(upstream, :node)
  def to_native(upstream), do: upstream

  @doc "Returns whether an upstream is the gateway of another node."
  def peer?(upstream), do: upstream.kind == :peer

  @doc "Formats an upstream as users write it, and a peer as the name of its node."
  def to_string(%{kind: :peer, node: node}), do: node
  def to_string(%{kind: :unix, protocol: :http2, path: path}), do: "h2c+unix:" <> path
  def to_string(%{kind: :unix, path: path}), do: "unix:" <> path

  def to_string(%{port: port, protocol: :http2} = upstream),
    do: "h2c://#{host(upstream)}:#{port}"

  def to_string(%{port: port} = upstream), do: "http://#{host(upstream)}:#{port}"

  defp host(%{ip: ip}) when tuple_size(ip) == 8, do: "[#{:inet.ntoa(ip)}]"
  defp host(%{ip: ip}), do: :inet.ntoa(ip)
  defp host(%{host: host}), do: host
  defp host(%{kind: :loopback}), do: "localhost"
end
