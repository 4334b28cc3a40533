defmodule ExServiceMeshRouter.Doctor.Checks.CheckOrigin do
  @moduledoc false
  # A page opens its sockets (LiveView, channels) with its own address as origin, and Phoenix lets in
  # the host of `url:` only, unless it is told of others: of the tenants, where the application
  # resolves some, and of the names that the endpoint has in development.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix, Private}

  def findings(snapshot) do
    for %{sockets: [_ | _]} = it <- snapshot.endpoints,
        refused = Enum.reject(origins(it), &allowed?(&1, it, snapshot)),
        refused != [],
        do: finding(it, refused, snapshot)
  end

  # `tenant.` stands for any of them.
  defp origins(%{hosts: hosts, tenants?: false}), do: hosts
  defp origins(%{hosts: hosts}), do: Enum.flat_map(hosts, &[&1, "tenant." <> &1])

  # As Phoenix compares; what only Phoenix can answer (a function, `:conn`) is taken for a yes.
  defp allowed?(origin, %{settings: settings} = it, snapshot) do
    case settings[:check_origin] do
      unset when unset in [nil, true] -> origin == host(it, snapshot)
      list when is_list(list) -> Enum.any?(list, &matches?(&1, origin))
      _ -> true
    end
  end

  # That of its links, which is given to it where its own is not its own.
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
      why: "LiveView and channels do not connect there: check_origin does not let these hosts in."
    })
  end

  defp list(%{settings: settings} = it) do
    before = if is_list(settings[:check_origin]), do: settings[:check_origin], else: []
    Enum.uniq(before ++ Enum.flat_map(it.hosts, &entries(&1, it)))
  end

  defp entries(host, %{tenants?: true}), do: ["//" <> host, "//*." <> host]
  defp entries(host, _it), do: ["//" <> host]
end
