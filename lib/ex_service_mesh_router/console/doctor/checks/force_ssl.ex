defmodule ExServiceMeshRouter.Doctor.Checks.ForceSsl do
  @moduledoc false
  # The gateway connects to endpoints without TLS. An endpoint that forces TLS must use the forwarded
  # scheme; otherwise it redirects every request endlessly. On a private listener, `conn.scheme` is
  # already the client's.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix, Private}

  def findings(snapshot) do
    for %{settings: settings} = it <- snapshot.endpoints,
        options = settings[:force_ssl],
        Keyword.keyword?(options),
        rewrite = List.wrap(options[:rewrite_on]),
        :x_forwarded_proto not in rewrite,
        not (Private.listener?(it, snapshot) or Private.taken?(it, snapshot)),
        do: finding(it, rewrite, snapshot)
  end

  defp finding(it, rewrite, snapshot) do
    force_ssl = [rewrite_on: rewrite ++ [:x_forwarded_proto]]

    Map.merge(Fix.endpoint(it, [force_ssl: force_ssl], snapshot), %{
      problem: "#{Endpoint.name(it)} forces TLS and ignores the client's scheme",
      why:
        "Requests from the gateway have no TLS, so the endpoint redirects each to https endlessly."
    })
  end
end
