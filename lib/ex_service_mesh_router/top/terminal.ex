defmodule ExServiceMeshRouter.Top.Terminal do
  @moduledoc false
  # A terminal that is given back as it was: a screen of its own, keys as they are pressed.
  #
  # In a program without a shell, OTP leaves the terminal to its driver, which hands on whole lines
  # and takes Ctrl-C for a signal, and to that the VM answers with a menu. `stty` changes both. It
  # has to be told which terminal, because the VM's children have none of their own.

  @enter "\e[?1049h\e[?25l"
  @leave "\e[?25h\e[?1049l"

  defstruct [:tty, :settings]

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
  its input. `nil` where it cannot be taken.
  """
  def open do
    link = File.read_link("/proc/self/fd/0")

    with true <- terminal?(link),
         {:ok, tty} <- link,
         {settings, 0} <- stty(tty, "-g"),
         {_, 0} <- stty(tty, "-icanon -echo -isig") do
      IO.write(@enter)
      caller = self()
      spawn_link(fn -> keys(caller) end)
      %__MODULE__{tty: tty, settings: String.trim(settings)}
    else
      _ -> nil
    end
  end

  defp terminal?({:ok, "/dev/null"}), do: false
  defp terminal?({:ok, path}), do: String.starts_with?(path, "/dev/")
  # No Linux: whatever OTP says.
  defp terminal?({:error, _reason}), do: true

  @doc "Gives it back."
  def close(nil), do: :ok

  def close(terminal) do
    IO.write(@leave)
    stty(terminal.tty, terminal.settings)
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

  defp stty(tty, arguments),
    do: System.cmd("sh", ["-c", "stty #{arguments} < '#{tty}'"], stderr_to_stdout: true)
end
