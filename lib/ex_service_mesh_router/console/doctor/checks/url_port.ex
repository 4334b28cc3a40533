defmodule ExServiceMeshRouter.Doctor.Checks.UrlPort do
  @moduledoc false
  # The links of an endpoint (`url(~p"/")`, redirects to other hosts, mails) have the port of its `url:`,
  # otherwise that of its listener.

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

      # In development, there is no proxy that changes the port.
      snapshot.development? and not links.explicit? and links.scheme == "http" ->
        finding(it, links, snapshot)

      true ->
        nil
    end
  end

  defp finding(it, %{host: host} = links, snapshot) do
    url = host(it, host, snapshot) ++ [port: snapshot.port]

    Map.merge(Fix.endpoint(it, [url: url], snapshot), %{
      problem: "#{Endpoint.name(it)} generates links that bypass the gateway",
      why:
        "They lead to #{links.scheme}://#{host}:#{links.port}, but the gateway listens on port " <>
          "#{snapshot.port}."
    })
  end

  # A shared host would lead to the index on the gateway's port.
  defp host(%{hosts: [name | _]}, host, %{shared: shared}),
    do: if(host in shared, do: [host: name], else: [])

  defp host(_it, _host, _snapshot), do: []
end
