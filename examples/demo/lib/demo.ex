defmodule Demo do
  @moduledoc "Starts the demo and prints what to try."

  alias Demo.Nodes

  @doc "Runs until it is stopped. If the start fails, it prints one message instead of a crash report."
  @spec run() :: no_return()
  def run do
    # Suppresses the supervisor's report: the reason has the message.
    Logger.configure(level: :none)

    case Application.ensure_all_started(:demo) do
      {:ok, _started} ->
        greet(Application.get_env(:demo, :cluster))
        Process.sleep(:infinity)

      {:error, {_application, reason}} ->
        IO.puts(:stderr, "\nThe demo cannot start: " <> explain(reason))
        System.halt(1)
    end
  end

  defp greet(nil) do
    Logger.configure(level: :warning)
    IO.puts(welcome(ExServiceMeshRouter.port()))
  end

  # What happens to a node is in the log of the others.
  defp greet(cluster) do
    nodes = Nodes.await(cluster)
    if cluster[:number] == 1, do: nodes |> Nodes.welcome() |> IO.puts()
    log("node #{cluster[:number]}: ")
  end

  # All nodes write to one terminal.
  defp log(prefix) do
    Logger.configure(level: :info)
    for handler <- :logger.get_handler_ids(), do: :logger.remove_handler(handler)

    :ok =
      :logger.add_handler(:default, :logger_std_h, %{
        formatter: {:logger_formatter, %{template: [prefix, :msg, "\n"]}},
        filters: [elixir: {&:logger_filters.domain/2, {:log, :sub, [:elixir]}}],
        filter_default: :stop
      })
  end

  # The message of the gateway's exception is complete.
  defp explain({{%{__exception__: true} = error, _stacktrace}, _start}), do: explain(error)

  defp explain({{:shutdown, {:failed_to_start_child, _child, reason}}, _start}),
    do: explain(reason)

  defp explain(%{__exception__: true} = error) do
    hint =
      if match?(%ExServiceMeshRouter.ListenError{kind: :eaddrinuse}, error),
        do: "\n\n`make demo PORT=4080` uses another port.",
        else: ""

    Exception.message(error) <> hint
  end

  defp explain({:not_distributed, reason}),
    do: "this VM cannot become a node (is epmd running?): #{inspect(reason)}"

  defp explain(reason), do: Application.format_error(reason)

  @doc "Returns the links to open and the commands to paste."
  @spec welcome(:inet.port_number()) :: String.t()
  def welcome(port) do
    [auth, billing] = for host <- Demo.Application.hosts(), do: "http://#{host}:#{port}"

    """

    The gateway listens on port #{port}. Two services are behind it.

    Open in a browser:

      #{auth}/
      #{billing}/
      #{String.replace(auth, "//", "//tenant1.")}/

    Or paste:

      curl #{auth}/headers
      curl #{String.replace(billing, "//", "//tenant1.")}/headers
      curl --no-buffer #{auth}/sse
      head -c 1G /dev/zero | curl -T - #{billing}/upload
      curl http://nobody.localhost:#{port}/

    WebSocket echo: #{String.replace(auth, "http", "ws")}/ws

    Ctrl-C stops it.
    """
  end
end
