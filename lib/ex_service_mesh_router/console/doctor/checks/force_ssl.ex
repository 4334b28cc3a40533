defmodule ExServiceMeshRouter.Doctor.Checks.ForceSsl do
  @moduledoc false
  # Endpoints are spoken to without TLS, so one that forces it has to go by what the gateway says
  # about the client's connection. Without that it redirects every request, for ever. On a private
  # listener `conn.scheme` is the client's without that.

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
      problem: "#{Endpoint.name(it)} forces TLS and does not look at what the client speaks",
      why:
        "Behind the gateway every request comes without TLS: each is redirected to https, and again."
    })
  end
end
