defmodule ExServiceMeshRouter.Doctor.Checks.UrlHost do
  @moduledoc false
  # Every generated application says `url: [host: "localhost"]`. Of several, nobody gets it: each is
  # reached by its own name, and the links that it writes itself (`url(~p"/")`, mails) would still
  # lead to localhost, which is the gateway's index. In development the gateway mends that where it
  # listens for the endpoint; the others are told.

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
      problem: "#{Endpoint.name(it)} writes links to #{host}, which is not its own",
      why:
        "It shares that host with others, so that its links lead to the gateway's index. " <>
          "It is reached as #{name}."
    })
  end
end
