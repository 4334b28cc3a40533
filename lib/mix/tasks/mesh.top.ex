defmodule Mix.Tasks.Mesh.Top do
  @shortdoc "Shows what goes through a running gateway, each second"

  @moduledoc """
  Shows what goes through the running gateway: requests, errors and times of each service, what went
  wrong last, and what became of the routes. Ctrl-C ends it.

      mix mesh.top
      mix mesh.top --port 4080
      mix mesh.top --once

  It asks the index, on the gateway's own port: the gateway need not be a named node. In development
  the index is on; elsewhere `config :ex_service_mesh_router, index: true` makes it so, for this
  machine alone.

  ## Options

    * `--port` - the gateway's port; that of the configuration without it
    * `--once` - prints it once, without colours or control sequences, and ends
  """

  use Mix.Task

  alias ExServiceMeshRouter.{Config, Http.Client, Index, Json, Top}
  alias ExServiceMeshRouter.Doctor.Remote

  @pause 1_000

  @impl true
  def run(arguments) do
    {options, _rest} = OptionParser.parse!(arguments, strict: [port: :integer, once: :boolean])
    {ip, port} = address(options[:port])

    if options[:once],
      do: once(ip, port),
      else: watch(ip, port)
  end

  defp address(nil) do
    Mix.Task.run("app.config")
    environment = Application.get_all_env(:ex_service_mesh_router)

    case environment |> Keyword.delete(:included_applications) |> Config.new() do
      {:ok, %{port: 0}} -> Mix.raise("the configured port is 0: say which one it got with --port")
      {:ok, config} -> {Remote.address(config), config.port}
      {:error, error} -> Mix.raise(Exception.message(error))
    end
  end

  defp address(port), do: {{127, 0, 0, 1}, port}

  defp once(ip, port) do
    case ask(ip, port) do
      {:ok, report} -> report |> Top.render(:infinity, false) |> IO.write()
      {:error, why} -> Mix.raise(why)
    end
  end

  defp watch(ip, port) do
    case ask(ip, port) do
      {:ok, report} -> report |> Top.render(columns(), true) |> Top.screen() |> IO.write()
      {:error, why} -> IO.write(Top.screen([why, "\n"]))
    end

    Process.sleep(@pause)
    watch(ip, port)
  end

  defp columns do
    case :io.columns() do
      {:ok, columns} -> columns
      _ -> 100
    end
  end

  defp ask(ip, port) do
    with {:ok, 200, body} <- Client.get(ip, port, Index.anchor(), "/", "application/json"),
         {:ok, %{"services" => _} = report} <- Json.decode(body) do
      {:ok, report}
    else
      {:error, reason} ->
        {:error, "no gateway answers on port #{port}: #{:inet.format_error(reason)}"}

      _ ->
        {:error,
         "on port #{port} there is no index: `config :ex_service_mesh_router, index: true`"}
    end
  end
end
