defmodule Router.Shared.TenantResolver do
  @moduledoc """
  Tells which tenant a host name addresses.

  The gateway routes `tenant1.auth.local` to the service of `auth.local` and passes the host on as
  it came; who the tenant is, is for the service to say. This module is the one answer to that
  question, shared by every Phoenix application of the umbrella. It is pure: no process, no
  configuration, no dependency, and nothing is looked up.

  A tenant found here is a *claim of the client*: whoever sends a request chooses its host. Check
  that the tenant exists, and that the user belongs to it, before using it for anything.

  ## With or without a base

  `resolve/1` knows nothing but the name, so it accepts the one shape that can be told from the
  name alone: exactly three labels, `tenant.service.domain`. Note that `www.example.com` has that
  shape too.

  `resolve/2` with `base:` knows the host names of the services, and therefore works at any depth
  (`tenant1.auth.example.com` below `auth.example.com`) and never takes a service for a tenant.
  Where the service's own host is known, prefer it.

  `ExServiceMeshRouter.TenantPlug` and `ExServiceMeshRouter.TenantHook` put the answer into the
  assigns of a connection and of a LiveView.
  """

  @typedoc "A host as it stands in a URL or a `Host` field: in any case, with or without a port."
  @type host :: String.t()

  @typedoc "The tenant's label, in lower case: 1 to 63 letters, digits and inner hyphens."
  @type tenant :: String.t()

  @typedoc """
  Options of `resolve/2`.

    * `:base` - the host name of the service, or a list of several. An entry that is not a host
      name raises `ArgumentError`, since it could never match.
  """
  @type option :: {:base, host() | [host()]}

  alias ExServiceMeshRouter.Config.Host

  @max_host_bytes 253

  @doc """
  Returns the first of exactly three labels.

  Port, case and one trailing dot do not matter. Fewer or more labels, IP addresses and labels that
  DNS does not allow in a host name are `:error`, and so is `nil`.

      iex> Router.Shared.TenantResolver.resolve("tenant1.auth.local")
      {:ok, "tenant1"}

      iex> Router.Shared.TenantResolver.resolve("Tenant1.Auth.Local.:4000")
      {:ok, "tenant1"}

      iex> Router.Shared.TenantResolver.resolve("auth.local")
      :error

      iex> Router.Shared.TenantResolver.resolve("tenant1.auth.example.com")
      :error

      iex> Router.Shared.TenantResolver.resolve("127.0.0.1:4000")
      :error

      iex> Router.Shared.TenantResolver.resolve("-tenant.auth.local")
      :error
  """
  @spec resolve(host() | nil) :: {:ok, tenant()} | :error
  def resolve(host), do: resolve(host, [])

  @doc """
  Returns the one label in front of a base.

  The longest base that matches decides. A base itself has no tenant, even when it lies below
  another one. Two or more labels in front of the base are `:error`: neither of them can be said to
  be the tenant. Without `:base` this is `resolve/1`.

      iex> Router.Shared.TenantResolver.resolve("tenant1.auth.example.com", base: "auth.example.com")
      {:ok, "tenant1"}

      iex> Router.Shared.TenantResolver.resolve("auth.example.com:4000", base: "auth.example.com")
      :error

      iex> services = ["example.com", "auth.example.com"]
      iex> Router.Shared.TenantResolver.resolve("tenant1.auth.example.com", base: services)
      {:ok, "tenant1"}
      iex> Router.Shared.TenantResolver.resolve("tenant1.example.com", base: services)
      {:ok, "tenant1"}
      iex> Router.Shared.TenantResolver.resolve("auth.example.com", base: services)
      :error

      iex> Router.Shared.TenantResolver.resolve("a.b.auth.example.com", base: "auth.example.com")
      :error

      iex> Router.Shared.TenantResolver.resolve("tenant1.auth.local", base: "")
      ** (ArgumentError) :base must be a host name or a list of host names, got: ""
  """
  @spec resolve(host() | nil, [option()]) :: {:ok, tenant()} | :error
  def resolve(host, options) when (is_binary(host) or is_nil(host)) and is_list(options) do
    bases = bases!(options)

    with {:ok, labels} <- labels(host), do: tenant(labels, bases)
  end

  defp tenant([tenant, _service, _domain], :none), do: {:ok, tenant}
  defp tenant(_labels, :none), do: :error

  # Only the name without its first label, or the name itself, can be a base. Which of several
  # bases is the longest needs no search, then: the name itself comes first.
  defp tenant([tenant | rest] = labels, bases) do
    if labels not in bases and rest in bases, do: {:ok, tenant}, else: :error
  end

  defp bases!([]), do: :none
  defp bases!(base: hosts) when is_list(hosts), do: Enum.map(hosts, &base!/1)
  defp bases!(base: host), do: [base!(host)]

  defp bases!(other) do
    raise ArgumentError, "expected only the option :base, got: #{inspect(other)}"
  end

  defp base!(host) do
    case is_binary(host) and labels(host) do
      {:ok, labels} ->
        labels

      _not_a_host_name ->
        raise ArgumentError,
              ":base must be a host name or a list of host names, got: #{inspect(host)}"
    end
  end

  # The labels of a host name in lower case, or :error for everything that is none. A name whose last
  # label is a number is an IPv4 address in one of its spellings ("127.0.0.1", "127.1", "0x7f.1"): no
  # top-level domain is a number.
  defp labels(host) do
    with {:ok, name, _port} <- Host.parse(host),
         true <- byte_size(name) <= @max_host_bytes,
         labels = String.split(name, "."),
         true <- Enum.all?(labels, &label?/1),
         false <- List.last(labels) =~ ~r/\A(?:[0-9]+|0x[0-9a-f]*)\z/ do
      {:ok, labels}
    else
      _ -> :error
    end
  end

  # RFC 1123, section 2.1: up to 63 letters, digits and hyphens, no hyphen at either end.
  defp label?(label), do: label =~ ~r/\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z/
end
