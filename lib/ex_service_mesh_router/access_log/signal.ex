defmodule ExServiceMeshRouter.AccessLog.Signal do
  @moduledoc false
  # SIGHUP would end the node unless somebody handles it; asked for only where a file is written.

  @behaviour :gen_event

  alias ExServiceMeshRouter.{Gateway, Native}

  def add(name) do
    # A Reporter that was killed has left its handler behind.
    delete(name)
    :os.set_signal(:sighup, :handle)
    :gen_event.add_handler(:erl_signal_server, {__MODULE__, name}, name)
  end

  @doc "Removes the handler. SIGHUP ends the node again, unless another handler may want it."
  def remove(name) do
    delete(name)
    others = :gen_event.which_handlers(:erl_signal_server) -- [:erl_signal_handler]

    unless Enum.any?(others, &(&1 != ExServiceMeshRouter.Shutdown.SignalHandler)),
      do: :os.set_signal(:sighup, :default)
  end

  defp delete(name), do: :gen_event.delete_handler(:erl_signal_server, {__MODULE__, name}, [])

  @impl true
  def init(name), do: {:ok, name}

  @impl true
  def handle_event(:sighup, name) do
    # In a process of its own: whatever happens there must not take the handler away.
    spawn(fn -> name |> Gateway.ref() |> Native.reopen_log() end)
    {:ok, name}
  end

  def handle_event(_signal, name), do: {:ok, name}

  @impl true
  def handle_call(_request, name), do: {:ok, :ok, name}
end
