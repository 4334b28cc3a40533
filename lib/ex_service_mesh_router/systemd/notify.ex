defmodule ExServiceMeshRouter.Systemd.Notify do
  @moduledoc false
  # Tells systemd about the state of this VM (sd_notify(3)), where NOTIFY_SOCKET is set. A message
  # that cannot be sent costs one line in the log.

  require Logger

  @variable "NOTIFY_SOCKET"

  @doc "Returns whether systemd wants to be told."
  def wanted?, do: System.get_env(@variable) not in [nil, ""]

  @doc "Tells that the VM starts, and what it waits for."
  def waiting(text), do: send_message("STATUS=waiting: #{text}")

  @doc "Tells that the VM serves. With MAINPID it may be another process than systemd has started."
  def ready(text) do
    if send_message("READY=1\nMAINPID=#{System.pid()}\nSTATUS=#{text}"),
      do: Logger.info("ExServiceMeshRouter told systemd that process #{System.pid()} is ready")
  end

  @doc "Tells that the VM stops."
  def stopping, do: send_message("STOPPING=1\nSTATUS=finishing open requests")

  defp send_message(text), do: wanted?() and told(send_to_socket(text))

  defp send_to_socket(text) do
    with {:ok, address} <- address(System.get_env(@variable)),
         {:ok, socket} <- :gen_udp.open(0, [:local]) do
      sent = :gen_udp.send(socket, {:local, address}, 0, text)
      :gen_udp.close(socket)
      sent
    end
  end

  defp told(:ok), do: true

  defp told({:error, reason}) do
    unless :persistent_term.get(__MODULE__, false) do
      :persistent_term.put(__MODULE__, true)
      value = inspect(System.get_env(@variable))

      Logger.warning(
        "ExServiceMeshRouter cannot tell systemd its state: #{@variable} is #{value}, #{why(reason)}"
      )
    end

    false
  end

  @longest 107

  defp address(text) when byte_size(text) > @longest, do: {:error, :too_long}
  defp address("/" <> _ = path), do: {:ok, path}
  # Abstract, not in the file system.
  defp address("@" <> rest) when rest != "", do: {:ok, <<0, rest::binary>>}
  defp address(_other), do: {:error, :form}

  defp why(:form), do: "expected a path that begins with / or a name that begins with @"
  defp why(:too_long), do: "which has more than #{@longest} bytes"
  defp why(reason), do: to_string(:file.format_error(reason))
end
