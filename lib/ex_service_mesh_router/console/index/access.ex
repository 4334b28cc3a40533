defmodule ExServiceMeshRouter.Console.Index.Access do
  @moduledoc false
  # Who may see the index, and under which host.
  #
  # By address: loopback, and what `index: [allow: ...]` names, judged by what the gateway says about
  # the client, never by what the client says.
  #
  # By host: a stranger's web page can have its own name point to this machine (DNS rebinding) and
  # would then read the answer as its own. So the page is shown under names that nobody on the
  # internet can own, and under those beside known hosts; under any other name, and where there is
  # none that can be read, there is only the way to it.

  alias ExServiceMeshRouter.Config.{Host, Network}
  alias ExServiceMeshRouter.Plugs.ForwardedReader
  alias ExServiceMeshRouter.Registry.IndexRow

  @doc "Whether this client may see it."
  def allowed?(headers, networks) do
    case ForwardedReader.client(headers) do
      nil -> false
      ip -> Network.member?(networks, ip)
    end
  end

  @doc "`:own` for the gateway's own names and addresses, `:near` or `:foreign` for unknown hosts."
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

  # Two labels may be all that strangers share (`co.uk`, `github.io`): anybody can have a name beside
  # one below them. So can anybody below what these hand out, at whatever depth.
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
