defmodule ExServiceMeshRouter.Plugs.TenantOptions do
  @moduledoc false
  # Validates the options of TenantPlug and TenantHook and resolves a tenant with them. Must not know
  # Plug or LiveView.

  alias ExServiceMeshRouter.Endpoint.DevNames
  alias Router.Shared.TenantResolver

  defstruct key: :tenant, base: nil, on_missing: :continue

  @known [:key, :base, :on_missing]

  # Raises one error with all problems.
  def new!(options, module) do
    unless Keyword.keyword?(options) do
      raise ArgumentError, "#{inspect(module)} takes a keyword list, got: #{inspect(options)}"
    end

    case Enum.flat_map(options, &problem/1) do
      [] -> struct!(__MODULE__, options)
      problems -> raise ArgumentError, Enum.join(["#{inspect(module)}:" | problems], "\n  * ")
    end
  end

  def tenant(%__MODULE__{base: base}, host, endpoint) do
    result =
      case base do
        nil -> TenantResolver.resolve(host)
        :endpoint -> TenantResolver.resolve(host, base: endpoint_hosts!(endpoint))
        {module, fun, args} -> TenantResolver.resolve(host, base: apply(module, fun, args))
        base -> TenantResolver.resolve(host, base: base)
      end

    with {:ok, tenant} <- result, do: tenant, else: (:error -> nil)
  end

  defp endpoint_hosts!(nil) do
    raise ArgumentError,
          "base: :endpoint needs a Phoenix endpoint, but the connection has none (:phoenix_endpoint)"
  end

  # Without the derived names, `auth.localhost` would be the tenant "auth" of Phoenix's default host.
  defp endpoint_hosts!(endpoint), do: [endpoint.host() | DevNames.of_endpoint(endpoint)]

  defp problem({key, _value}) when key not in @known do
    ["unknown option #{inspect(key)}; known are #{Enum.map_join(@known, ", ", &inspect/1)}"]
  end

  defp problem({key, value}) do
    if valid?(key, value),
      do: [],
      else: ["#{inspect(key)} is #{inspect(value)}; #{accepted(key)}"]
  end

  defp valid?(:key, value), do: is_atom(value) and value not in [nil, true, false]
  defp valid?(:base, base) when base in [nil, :endpoint], do: true

  defp valid?(:base, {module, fun, args}),
    do: is_atom(module) and is_atom(fun) and is_list(args)

  defp valid?(:base, []), do: false

  defp valid?(:base, base) do
    TenantResolver.resolve(nil, base: base) == :error
  rescue
    ArgumentError -> false
  end

  defp valid?(:on_missing, value) when value in [:continue, :not_found], do: true
  defp valid?(:on_missing, {module, fun}), do: is_atom(module) and is_atom(fun)
  defp valid?(:on_missing, value), do: is_function(value, 1)

  defp accepted(:key), do: "it must be an atom, the name of the assign"

  defp accepted(:base) do
    "it must be a host name, a list of host names, :endpoint, or {module, function, arguments}"
  end

  defp accepted(:on_missing) do
    "it must be :continue, :not_found, {module, function}, or a function of one argument"
  end
end
