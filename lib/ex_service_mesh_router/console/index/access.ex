defmodule ExServiceMeshRouter.Console.Index.Access do
  @moduledoc false
  # Decides which clients see the index, and under which hosts.
  #
  # By address: loopback and the networks of `index: [allow: ...]`. The client's address comes from the
  # gateway, never from the client.
  #
  # By host: a web site can point its name to this machine (DNS rebinding) and read the answer. The page
  # is therefore only shown under names that cannot be registered on the internet and under siblings of
  # known hosts. Other hosts get a link to the page.

  alias ExServiceMeshRouter.Config.{Host, Network}
  alias ExServiceMeshRouter.Plugs.ForwardedReader
  alias ExServiceMeshRouter.Registry.IndexRow

  @doc "Returns whether the client of this request may see the index."
  def allowed?(headers, networks) do
    case ForwardedReader.client(headers) do
      nil -> false
      ip -> Network.member?(networks, ip)
    end
  end

  @doc "Returns `:own` for the gateway's names and addresses, `:near` or `:foreign` for unknown hosts."
  def host(nil, _known), do: :foreign

  def host(host, known) do
    cond do
      host == "localhost" or host in IndexRow.hosts() -> :own
      Host.address?(host) -> :own
      Host.private?(host) or sibling?(host, known) -> :near
      true -> :foreign
    end
  end

  # `auht.corp.example.com` beside `auth.corp.example.com`.
  defp sibling?(host, known) do
    zones = for name <- known, not Host.address?(name), zone = zone(name), do: zone
    Enum.any?(zones, &(host == &1 or String.ends_with?(host, "." <> &1)))
  end

  # Different owners may share a parent domain of two labels (`co.uk`, `github.io`), and these domains at
  # any depth.
  @shared ~w(amazonaws.com appspot.com awsapprunner.com azure.com azurewebsites.net cloudfront.net
             elasticbeanstalk.com github.dev gitpod.io ngrok.app ngrok.io on.aws run.app)

  defp zone(name) do
    with [_label, zone] <- String.split(name, ".", parts: 2),
         [_, _, _ | _] = labels <- String.split(zone, "."),
         false <- labels |> Enum.take(-2) |> Enum.join(".") |> shared?(),
         do: zone,
         else: (_ -> nil)
  end

  defp shared?(domain), do: domain in @shared
end
