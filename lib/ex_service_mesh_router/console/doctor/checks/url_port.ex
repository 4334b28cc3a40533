defmodule ExServiceMeshRouter.Doctor.Checks.UrlPort do
  @moduledoc false
  # Links that an endpoint writes itself (`url(~p"/")`, redirects to other hosts, mails) lead where
  # its `url:` says; without a port there, to where it listens.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix, Private}

  def findings(snapshot) do
    for it <- snapshot.endpoints, finding = check(it, snapshot), do: finding
  end

  defp check(it, %{port: gateway} = snapshot) do
    %{port: port} = links = Endpoint.links(it)

    cond do
      port == gateway or gateway == 0 or Private.port?(it, snapshot) ->
        nil

      port in [Endpoint.http_port(it), Endpoint.https_port(it)] ->
        finding(it, links, snapshot)

      # Nothing in front changes the port on a developer's machine.
      snapshot.development? and not links.explicit? and links.scheme == "http" ->
        finding(it, links, snapshot)

      true ->
        nil
    end
  end

  defp finding(it, %{host: host} = links, snapshot) do
    url = host(it, host, snapshot) ++ [port: snapshot.port]

    Map.merge(Fix.endpoint(it, [url: url], snapshot), %{
      problem: "#{Endpoint.name(it)} writes links that bypass the gateway",
      why:
        "They lead to #{links.scheme}://#{host}:#{links.port}, and the gateway listens on port " <>
          "#{snapshot.port}."
    })
  end

  # On the gateway's port a host that several have is nobody's.
  defp host(%{hosts: [name | _]}, host, %{shared: shared}),
    do: if(host in shared, do: [host: name], else: [])

  defp host(_it, _host, _snapshot), do: []
end
