defmodule ExServiceMeshRouter.Endpoint.DevNames do
  @moduledoc false
  # Names that need no hosts file: below `dev_domain`, which is "localhost" in development, each
  # endpoint answers to the name of its application. RFC 6761 sends everything below localhost to
  # this machine, and browsers and curl do so without asking anybody.

  alias ExServiceMeshRouter.Config.Options

  # What Phoenix takes for the host of an endpoint that says nothing, and what it generates.
  @unset "localhost"

  @doc "The derived hosts of an endpoint: one, or none without a `dev_domain`."
  def hosts(_application, _endpoint, nil), do: []

  def hosts(application, endpoint, domain) do
    host = label(application, endpoint) <> "." <> domain
    if byte_size(host) <= 253, do: [host], else: []
  end

  @doc "The derived hosts of a Phoenix endpoint, by the configuration of the application's gateway."
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
  Hosts that say nothing about who is meant, once more than one endpoint has them: what Phoenix
  writes into every generated application, and the bare domain of the derived names.

  Such a host is no conflict, and nobody gets it: an arbitrary one of several would be worse than
  a page that names them all. An endpoint that has it alone keeps it, as it would without a gateway.
  """
  def shared(nil), do: []
  def shared(domain), do: Enum.uniq([@unset, domain])

  @doc """
  `auth_web` is "auth". Further endpoints of an application add what sets their module apart:
  `AuthWeb.Admin.Endpoint` of `auth_web` is "auth-admin".
  """
  def label(application, endpoint) do
    name = application |> Atom.to_string() |> String.replace_suffix("_web", "")
    [name | more(application, endpoint)] |> Enum.join("-") |> dns_label()
  end

  # Only below the namespace that Phoenix gives the application: other names have no known shape.
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

  # No underscore: it is no letter of a host name, and cookies and tenants would trip over it.
  defp dns_label(text) do
    text
    |> String.downcase(:ascii)
    |> String.replace(~r/[^a-z0-9]+/, "-")
    |> String.slice(0, 63)
    |> String.trim("-")
  end
end
