defmodule Demo do
  @moduledoc "Starts the demo and prints what to try."

  @doc "Runs until it is stopped. If the start fails, it prints one message instead of a crash report."
  @spec run() :: no_return()
  def run do
    # Suppresses the supervisor's report: the reason has the message.
    Logger.configure(level: :none)

    case Application.ensure_all_started(:demo) do
      {:ok, _started} ->
        Logger.configure(level: :warning)
        IO.puts(welcome(ExServiceMeshRouter.port()))
        Process.sleep(:infinity)

      {:error, {_application, reason}} ->
        IO.puts(:stderr, "\nThe demo cannot start: " <> explain(reason))
        System.halt(1)
    end
  end

  # The message of the gateway's exception is complete.
  defp explain({{%{__exception__: true} = error, _stacktrace}, _start}) do
    hint =
      if match?(%ExServiceMeshRouter.ListenError{kind: :eaddrinuse}, error),
        do: "\n\n`make demo PORT=4080` uses another port.",
        else: ""

    Exception.message(error) <> hint
  end

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
