defmodule ExServiceMeshRouter.Doctor.Checks.CheckOrigin do
  @moduledoc false
  # The sockets of a page (LiveView, channels) have its address as origin. By default, Phoenix only
  # accepts the host of `url:`. Tenants, if the application resolves some, and development names need an
  # entry in `check_origin`.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix, Private}

  def findings(snapshot) do
    for %{sockets: [_ | _]} = it <- snapshot.endpoints,
        refused = Enum.reject(origins(it), &allowed?(&1, it, snapshot)),
        refused != [],
        do: finding(it, refused, snapshot)
  end

  # `tenant.` stands for any tenant.
  defp origins(%{hosts: hosts, tenants?: false}), do: hosts
  defp origins(%{hosts: hosts}), do: Enum.flat_map(hosts, &[&1, "tenant." <> &1])

  # Phoenix's comparison. Values that only Phoenix can evaluate (a function, `:conn`) count as allowed.
  defp allowed?(origin, %{settings: settings} = it, snapshot) do
    case settings[:check_origin] do
      unset when unset in [nil, true] -> origin == host(it, snapshot)
      list when is_list(list) -> Enum.any?(list, &matches?(&1, origin))
      _ -> true
    end
  end

  # The host of its links, which the gateway will set if the configured one is shared.
  defp host(it, snapshot) do
    host = Endpoint.links(it).host
    given? = host in snapshot.shared and Private.links?(it, snapshot)
    if given?, do: List.first(it.hosts), else: host
  end

  defp matches?(allowed, origin) when is_binary(allowed) do
    case URI.parse(allowed).host do
      "*." <> host -> origin == host or String.ends_with?(origin, "." <> host)
      host -> origin == host
    end
  end

  defp matches?(_allowed, _origin), do: true

  defp finding(it, refused, snapshot) do
    Map.merge(Fix.endpoint(it, [check_origin: list(it)], snapshot), %{
      problem: "#{Endpoint.name(it)} refuses the sockets of pages at #{Enum.join(refused, ", ")}",
      why: "LiveView and channels do not connect there: check_origin does not allow these hosts."
    })
  end

  defp list(%{settings: settings} = it) do
    before = if is_list(settings[:check_origin]), do: settings[:check_origin], else: []
    Enum.uniq(before ++ Enum.flat_map(it.hosts, &entries(&1, it)))
  end

  defp entries(host, %{tenants?: true}), do: ["//" <> host, "//*." <> host]
  defp entries(host, _it), do: ["//" <> host]
end
