defmodule ExServiceMeshRouter.Console.Terminal do
  @moduledoc false
  # Switches the terminal to an alternate screen and reads single keys.
  #
  # Without a shell, OTP passes whole lines on, and Ctrl-C is a signal for which the VM shows a menu.
  # `stty` changes both. It gets the terminal by the VM's file descriptor: child processes have no
  # terminal, and its name may belong to another container. Without `stty` or /proc, input is by line.

  @enter "\e[?1049h\e[?25l"
  @leave "\e[?25h\e[?1049l"

  # input: `{:keys, old settings}`, `:lines`, or `:none` if the input is not a terminal.
  defstruct [:input]

  @doc "Returns `{columns, rows}` of the output's terminal, or `nil` if it is not a terminal."
  def size do
    # Without this check, OTP returns the size of the input's terminal.
    with true <- terminal?(File.read_link("/proc/self/fd/1")),
         {:ok, columns} when columns > 0 <- :io.columns(),
         {:ok, rows} when rows > 0 <- :io.rows() do
      {columns, rows}
    else
      _ -> nil
    end
  end

  @doc """
  Switches the terminal. The caller then gets `{:key, byte}` messages, and `{:key, :eof}` at the end of
  the input.
  """
  def open do
    terminal = %__MODULE__{input: input()}
    IO.write(@enter)
    caller = self()
    if terminal.input != :none, do: spawn_link(fn -> keys(caller) end)
    terminal
  end

  defp input do
    with true <- terminal?(File.read_link("/proc/self/fd/0")),
         {settings, 0} <- stty("-g"),
         {_, 0} <- stty("-icanon -echo -isig") do
      {:keys, String.trim(settings)}
    else
      false -> :none
      _failed -> :lines
    end
  end

  @doc "Returns a hint how to end the program, or `nil` if single keys work."
  def prompt(%{input: {:keys, _settings}}), do: nil
  def prompt(%{input: :lines}), do: "Type q and Enter to quit: "
  def prompt(%{input: :none}), do: "Press Ctrl-C to quit. "

  defp terminal?({:ok, "/dev/null"}), do: false
  defp terminal?({:ok, path}), do: String.starts_with?(path, "/dev/")
  # Without /proc, OTP decides.
  defp terminal?({:error, _reason}), do: true

  @doc "Restores the terminal."
  def close(terminal) do
    IO.write(@leave)
    with {:keys, settings} <- terminal.input, do: stty(settings)
    :ok
  end

  @doc "Replaces the lines on the screen without flicker."
  def show(text) do
    lines = text |> IO.iodata_to_binary() |> String.trim_trailing("\n")
    # Clears each line first: after a full line, the cursor is still on its last column.
    IO.write(["\e[H\e[K", String.replace(lines, "\n", "\r\n\e[K"), "\e[J"])
  end

  defp keys(caller) do
    case IO.binread(:stdio, 1) do
      <<key>> ->
        send(caller, {:key, key})
        keys(caller)

      _eof_or_error ->
        send(caller, {:key, :eof})
    end
  end

  defp stty(arguments) do
    command = "stty #{arguments} < /proc/#{System.pid()}/fd/0"
    System.cmd("sh", ["-c", command], stderr_to_stdout: true)
  end
end
