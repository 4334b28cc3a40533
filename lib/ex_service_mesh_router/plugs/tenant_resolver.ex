defmodule Router.Shared.TenantResolver do
  @moduledoc """
  Finds the tenant in a host name.

  The gateway routes `tenant1.auth.local` to the service of `auth.local` and passes the host on
  unchanged. The Phoenix applications of the umbrella call this module to find the tenant. It is pure:
  it has no process, configuration or dependency, and looks nothing up.

  The client chooses the host, so a tenant found here is only a *claim*. Check that the tenant exists
  and that the user belongs to it before you use it.

  ## With or without a base

  `resolve/1` does not know the services and accepts only hosts of exactly three labels,
  `tenant.service.domain`. Note that `www.example.com` also has three labels.

  `resolve/2` with `base:` knows the host names of the services. It works at any depth
  (`tenant1.auth.example.com` below `auth.example.com`) and never mistakes a service for a tenant.
  Prefer it if the host of the service is known.

  `ExServiceMeshRouter.TenantPlug` and `ExServiceMeshRouter.TenantHook` assign the tenant in a
  connection and in a LiveView.
  """

  @typedoc "A host as in a URL or a `Host` field: in any case, with or without a port."
  @type host :: String.t()

  @typedoc "The tenant's label, in lower case: 1 to 63 letters, digits and inner hyphens."
  @type tenant :: String.t()

  @typedoc """
  Options of `resolve/2`.

    * `:base` - the host name of the service, or a list of host names. Other values raise
      `ArgumentError`.
  """
  @type option :: {:base, host() | [host()]}

  alias ExServiceMeshRouter.Config.Host

  @max_host_bytes 253

  @doc """
  Returns the first label of a host with exactly three labels.

  Port, case and one trailing dot do not matter. Returns `:error` for another number of labels, for an
  IP address, for labels that DNS does not allow in a host name, and for `nil`.

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
  Returns the single label in front of a base.

  The longest matching base counts. A base has no tenant, even if it is below another base. Two or
  more labels in front of the base are `:error`. Without `:base` this is `resolve/1`.

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

  # Only the name or the name without its first label can be the longest matching base.
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

  # The labels of a host name in lower case. A numeric last label means an IPv4 address in one of its
  # spellings ("127.0.0.1", "127.1", "0x7f.1"): top-level domains are not numeric.
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
