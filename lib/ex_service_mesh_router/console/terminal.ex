defmodule ExServiceMeshRouter.Console.Terminal do
  @moduledoc false
  # Takes the terminal for a while: a screen of its own, and keys as they are pressed.
  #
  # OTP hands on whole lines to a program without a shell, and takes Ctrl-C for a signal, which the VM
  # answers with a menu. `stty` changes both. It is told which terminal by the VM's own descriptor: the
  # VM's children have none, and the name of the terminal may be one of another container. Where that
  # does not work (no `stty`, no /proc), lines have to do.

  @enter "\e[?1049h\e[?25l"
  @leave "\e[?25h\e[?1049l"

  # input: `{:keys, settings before}`, `:lines`, or `:none` where the input is no terminal.
  defstruct [:input]

  @doc "`{columns, rows}` of the terminal that is written to, or `nil` where that is none."
  def size do
    # OTP also answers for the terminal that it reads from.
    with true <- terminal?(File.read_link("/proc/self/fd/1")),
         {:ok, columns} when columns > 0 <- :io.columns(),
         {:ok, rows} when rows > 0 <- :io.rows() do
      {columns, rows}
    else
      _ -> nil
    end
  end

  @doc """
  Takes the terminal. From then on the caller gets `{:key, byte}`, and `{:key, :eof}` at the end of
  its input.
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

  @doc "What the user has to be told about how to end it, or `nil`."
  def prompt(%{input: {:keys, _settings}}), do: nil
  def prompt(%{input: :lines}), do: "q and Enter end it: "
  def prompt(%{input: :none}), do: "Ctrl-C ends it. "

  defp terminal?({:ok, "/dev/null"}), do: false
  defp terminal?({:ok, path}), do: String.starts_with?(path, "/dev/")
  # No Linux: whatever OTP says.
  defp terminal?({:error, _reason}), do: true

  @doc "Gives it back."
  def close(terminal) do
    IO.write(@leave)
    with {:keys, settings} <- terminal.input, do: stty(settings)
    :ok
  end

  @doc "Shows lines in place of what was there, without a flicker."
  def show(text) do
    lines = text |> IO.iodata_to_binary() |> String.trim_trailing("\n")
    # Each line is cleared before it is written: a cursor behind the last column is still on it.
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
