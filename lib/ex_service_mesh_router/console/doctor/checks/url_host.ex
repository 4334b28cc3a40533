defmodule ExServiceMeshRouter.Doctor.Checks.UrlHost do
  @moduledoc false
  # Generated applications have `url: [host: "localhost"]`. If several endpoints share it, none gets it,
  # and their links (`url(~p"/")`, mails) lead to the gateway's index. In development, the gateway sets
  # the host for endpoints with a private listener; this check finds the others.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix, Private}

  def findings(snapshot) do
    for it <- snapshot.endpoints,
        it.serves? == true,
        %{host: host, port: port} = Endpoint.links(it),
        host in snapshot.shared and port == snapshot.port,
        name = List.first(it.hosts),
        not Private.links?(it, snapshot),
        do: finding(it, host, name, snapshot)
  end

  defp finding(it, host, name, snapshot) do
    Map.merge(Fix.endpoint(it, [url: [host: name]], snapshot), %{
      problem: "#{Endpoint.name(it)} generates links to #{host}, which several endpoints share",
      why: "The links lead to the gateway's index. The endpoint answers to #{name}."
    })
  end
end
