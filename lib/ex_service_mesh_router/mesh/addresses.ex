defmodule ExServiceMeshRouter.Mesh.Addresses do
  @moduledoc false
  # Knows where gateways of other nodes listen: which addresses this node binds and announces, and in
  # which order the addresses of another node are tried. A wrong one does no harm, because the peer's key
  # is pinned.

  alias ExServiceMeshRouter.Config.Network
  alias ExServiceMeshRouter.Registry.Resolver

  @any ["0.0.0.0", "::"]
  # The data plane tries them one after another.
  @most 16

  @doc "Returns the addresses to bind, as text: by default those of Erlang distribution."
  def to_bind(nil) do
    case Application.get_env(:kernel, :inet_dist_use_interface) do
      ip when is_tuple(ip) -> [text(ip)]
      _ -> @any
    end
  end

  def to_bind(:any), do: @any
  def to_bind(:loopback), do: ["127.0.0.1", "::1"]
  def to_bind(ips), do: ips |> List.wrap() |> Enum.map(&text/1)

  @doc "Returns the IP addresses of this node to announce, for these bound ones."
  def to_announce(bound) do
    {any, others} = Enum.split_with(bound, &(&1 in @any))

    interfaces =
      for ip <- if(any == [], do: [], else: interfaces()),
          family = if(tuple_size(ip) == 4, do: "0.0.0.0", else: "::"),
          family in any,
          do: text(ip)

    Enum.take(Enum.uniq(others ++ interfaces), @most)
  end

  defp interfaces do
    {:ok, interfaces} = :inet.getifaddrs()

    for {_name, options} <- interfaces,
        flags = Keyword.get(options, :flags, []),
        :up in flags and :loopback not in flags,
        {:addr, ip} <- options,
        not link_local?(ip),
        do: ip
  end

  defp link_local?({169, 254, _, _}), do: true
  defp link_local?(ip), do: tuple_size(ip) == 8 and elem(ip, 0) in 0xFE80..0xFEBF

  @doc """
  Returns the addresses of a gateway as `[{host, port}]`, the best first: the advertised one, the one
  that the distribution connection has, its own, and the host of the node's name.
  """
  def candidates(hello) do
    advertised = List.wrap(hello.advertise)
    hosts = distribution(node(hello.member)) ++ hello.ips ++ host_of(hello.node)
    Enum.uniq(advertised ++ for(host <- hosts, do: {host, hello.port}))
  end

  defp distribution(node) do
    case :net_kernel.node_info(node, :address) do
      {:ok, {:net_address, {ip, _port}, _host, _protocol, _family}} when is_tuple(ip) ->
        if :inet.is_ip_address(ip), do: [ip |> Network.unmap() |> text()], else: []

      # An alternative carrier of the distribution.
      _ ->
        []
    end
  catch
    _kind, _reason -> []
  end

  defp host_of(node) do
    case String.split(node, "@", parts: 2) do
      [_name, host] when host != "" -> [host]
      _ -> []
    end
  end

  @doc "Returns the names among the candidates, which must be looked up."
  def names(candidates), do: for({host, _port} <- candidates, not address?(host), do: host)

  @doc "Looks up names; returns `%{name => [ip]}` of those that have addresses. It may take seconds."
  def look_up(names) do
    for name <- Enum.uniq(names),
        {:ok, ips} <- [Resolver.lookup(name)],
        into: %{},
        do: {name, ips}
  end

  @doc "Returns the term for the data plane, with the addresses of the names that are known."
  def to_native(candidates, known) do
    for {host, port} <- candidates,
        ip <-
          if(address?(host), do: [host], else: known |> Map.get(host, []) |> Enum.map(&text/1)),
        uniq: true do
      %{ip: ip, port: port}
    end
    |> Enum.take(@most)
  end

  defp address?(host), do: match?({:ok, _}, Network.parse_address(host))
  defp text(ip), do: ip |> :inet.ntoa() |> List.to_string()
end
