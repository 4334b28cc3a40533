defmodule ExServiceMeshRouter.Shutdown.SignalHandler do
  @moduledoc false
  # Drains on SIGTERM. OTP's own handler, which stops the node, is called when this one is done.

  @behaviour :gen_event

  def add(drain) do
    # Left behind by a predecessor that was killed.
    remove()
    :gen_event.add_handler(:erl_signal_server, __MODULE__, drain)
  end

  def remove do
    :gen_event.delete_handler(:erl_signal_server, __MODULE__, :removed)
    :ok
  end

  @impl true
  def init(drain), do: {:ok, drain}

  @impl true
  def handle_event(:sigterm, drain) do
    drain.()
    {:ok, drain}
  end

  def handle_event(_signal, drain), do: {:ok, drain}

  @impl true
  def handle_call(_request, drain), do: {:ok, :ok, drain}
end
