defmodule ExServiceMeshRouter.Endpoint.Candidates do
  @moduledoc false
  # Finds the Phoenix endpoints in the configuration of the loaded applications, in either form:
  #
  #     config :auth_web, AuthWeb.Endpoint, url: [host: "auth.local"]
  #     config :auth_web, endpoint: AuthWeb.Endpoint

  @doc "Returns `%{endpoint => application}` of the endpoints that `discover` allows."
  def all(discover) do
    applications = for {application, _, _} <- Application.loaded_applications(), do: application

    environments =
      for application <- applications, do: {application, Application.get_all_env(application)}

    # The application with the settings of an endpoint takes precedence over one that mentions it.
    mentioned = for {app, env} <- environments, module <- mentioned(env), do: {module, app}
    configured = for {app, env} <- environments, module <- configured(env), do: {module, app}

    for {module, application} <- mentioned ++ configured,
        wanted?(module, application, discover),
        endpoint?(module),
        into: %{},
        do: {module, application}
  end

  @doc "Returns whether `discover` allows this endpoint."
  def wanted?(_module, _application, true), do: true

  def wanted?(module, application, options) do
    named? = &(module in &1 or application in &1)
    only = Keyword.get(options, :only)
    (only == nil or named?.(only)) and not named?.(Keyword.get(options, :except, []))
  end

  defp mentioned(env) do
    env |> Keyword.get(:endpoint) |> List.wrap() |> Enum.filter(&module_name?/1)
  end

  defp configured(env) do
    for {key, value} <- env, module_name?(key), Keyword.keyword?(value), do: key
  end

  defp module_name?(term),
    do: is_atom(term) and String.starts_with?(Atom.to_string(term), "Elixir.")

  # Checks functions, not the @behaviour, so that other servers can act as endpoints (see
  # DiscoverableEndpoint). Repositories and mailers have similar settings, but not these functions.
  defp endpoint?(module) do
    Code.ensure_loaded?(module) and function_exported?(module, :config, 1) and
      (function_exported?(module, :struct_url, 0) or function_exported?(module, :url, 0))
  end
end
