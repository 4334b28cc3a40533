defmodule Mix.Tasks.Mesh.Top do
  @shortdoc "Shows the traffic of a running gateway, updated every second"

  @moduledoc """
  Shows the traffic of the running gateway, updated every second: requests, errors and latency of each
  service, the last errors, and the last changes of routes. `q` or Ctrl-C ends it and restores the
  terminal. If the terminal cannot pass single keys on, `q` and Enter end it; the last line says so.

      mix mesh.top
      mix mesh.top --port 4080
      mix mesh.top --once

  It reads the index on the gateway's port, so the gateway need not be a named node. The index is on in
  development; otherwise set `config :ex_service_mesh_router, index: true`, which allows this machine
  only. The statistics count these requests as `requests_unrouted`.

  In a small terminal, names are shortened and columns left out from the right. If the output is not a
  terminal, it is printed once.

  ## Options

    * `--port` (default the configured port) - the gateway's port
    * `--once` - prints one sample without colours or control sequences
  """

  use Mix.Task

  alias ExServiceMeshRouter.{Config, Json}
  alias ExServiceMeshRouter.Console.{Terminal, Top}
  alias ExServiceMeshRouter.Doctor.Remote
  alias ExServiceMeshRouter.Http.Client
  alias ExServiceMeshRouter.Registry.IndexRow

  @pause 1_000
  @ctrl_c 3
  @ctrl_d 4

  @impl true
  def run(arguments) do
    {options, _rest} = OptionParser.parse!(arguments, strict: [port: :integer, once: :boolean])
    {ip, port} = address(options[:port])

    # A gateway that does not run is an error only at the start.
    case ask(ip, port) do
      {:error, why} ->
        Mix.raise(why)

      {:ok, report} ->
        if options[:once] || !Terminal.size(), do: print(report), else: watch(ip, port)
    end
  end

  defp address(nil) do
    Mix.Task.run("app.config")
    environment = Application.get_all_env(:ex_service_mesh_router)

    case environment |> Keyword.delete(:included_applications) |> Config.new() do
      {:ok, %{port: 0}} -> Mix.raise("the configured port is 0; pass the actual port with --port")
      {:ok, config} -> {Remote.address(config), config.port}
      {:error, error} -> Mix.raise(Exception.message(error))
    end
  end

  defp address(port), do: {{127, 0, 0, 1}, port}

  defp print(report), do: report |> Top.render(:all, false) |> IO.write()

  defp watch(ip, port) do
    terminal = Terminal.open()
    me = self()

    # The VM does not wait for this process, so the handler restores the terminal.
    {:ok, trap} =
      System.trap_signal(:sigterm, fn ->
        send(me, {:key, :eof})
        Terminal.close(terminal)
      end)

    try do
      show(ip, port, Terminal.prompt(terminal))
    after
      System.untrap_signal(:sigterm, trap)
      Terminal.close(terminal)
    end
  end

  defp show(ip, port, prompt) do
    ip |> ask(port) |> text(prompt) |> Terminal.show()
    unless left?(System.monotonic_time(:millisecond) + @pause), do: show(ip, port, prompt)
  end

  defp text(asked, nil), do: body(asked, Terminal.size() || :all)

  # The prompt takes the last line, where the terminal shows what is typed.
  defp text(asked, prompt) do
    size = with {columns, rows} <- Terminal.size() || :all, do: {columns, rows - 1}
    [body(asked, size), prompt]
  end

  defp body({:ok, report}, size), do: Top.render(report, size, true)
  defp body({:error, why}, _size), do: "#{why}; retrying\n"

  # Whether the user wants to leave before that time.
  defp left?(time) do
    receive do
      {:key, key} when key in [?q, ?Q, @ctrl_c, @ctrl_d, :eof] -> true
      {:key, _other} -> left?(time)
    after
      max(time - System.monotonic_time(:millisecond), 0) -> false
    end
  end

  defp ask(ip, port) do
    with {:ok, 200, body} <- Client.get(ip, port, IndexRow.anchor(), "/", "application/json"),
         {:ok, %{"services" => _} = report} <- Json.decode(body) do
      {:ok, report}
    else
      {:error, reason} ->
        {:error, "no gateway answers on port #{port}: #{:inet.format_error(reason)}"}

      _ ->
        {:error,
         "the server on port #{port} has no index; set `config :ex_service_mesh_router, index: true`"}
    end
  end
end
