defmodule ExServiceMeshRouter.Endpoint.DevNames do
  @moduledoc false
  # Derives the hosts of endpoints below `dev_domain` from the names of their applications. The domain
  # is "localhost" in development: RFC 6761 reserves it for this machine, and browsers and curl resolve
  # names below it without DNS or a hosts file.

  alias ExServiceMeshRouter.Config.Options

  # Phoenix's default host, which it also generates.
  @unset "localhost"

  @doc "Returns the derived hosts of an endpoint: one, or none without a `dev_domain`."
  def hosts(_application, _endpoint, nil), do: []

  def hosts(application, endpoint, domain) do
    host = label(application, endpoint) <> "." <> domain
    if byte_size(host) <= 253, do: [host], else: []
  end

  @doc "Returns the derived hosts of an endpoint with the configured `dev_domain`."
  def of_endpoint(endpoint) do
    if function_exported?(endpoint, :config, 1),
      do: hosts(endpoint.config(:otp_app), endpoint, configured_domain()),
      else: []
  end

  defp configured_domain do
    case Application.fetch_env(:ex_service_mesh_router, :dev_domain) do
      {:ok, domain} -> domain || nil
      :error -> Options.dev_domain()
    end
  end

  @doc """
  Returns the hosts that are ambiguous if several endpoints have them: Phoenix's generated host and the
  bare `dev_domain`.

  Such a host is not a conflict: none of the endpoints gets it, and the index lists them all. A single
  endpoint that has it keeps it, as it would without a gateway.
  """
  def shared(nil), do: []
  def shared(domain), do: Enum.uniq([@unset, domain])

  @doc """
  Returns the first label of a derived host: "auth" for `auth_web`. A further endpoint of an application
  adds the parts of its module: "auth-admin" for `AuthWeb.Admin.Endpoint` of `auth_web`.
  """
  def label(application, endpoint) do
    name = application |> Atom.to_string() |> String.replace_suffix("_web", "")
    [name | more(application, endpoint)] |> Enum.join("-") |> dns_label()
  end

  # Only below the namespace that Phoenix generates for the application.
  defp more(application, endpoint) do
    namespace = application |> Atom.to_string() |> Macro.camelize()

    case endpoint |> inspect() |> String.split(".") do
      [^namespace | rest] ->
        for part <- rest, part = String.replace_suffix(part, "Endpoint", ""), part != "" do
          Macro.underscore(part)
        end

      _other ->
        []
    end
  end

  # Underscores are not valid in host names; cookies and tenants would fail.
  defp dns_label(text) do
    text
    |> String.downcase(:ascii)
    |> String.replace(~r/[^a-z0-9]+/, "-")
    |> String.slice(0, 63)
    |> String.trim("-")
  end
end
