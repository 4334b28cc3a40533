defmodule ExServiceMeshRouter.Gateway.Signal do
  @moduledoc false
  # Calls functions when the node gets a signal: SIGTERM drains (Shutdown), SIGHUP reopens the access
  # log (Reporter). OTP's own handler, which stops the node on SIGTERM, is called after ours.

  @behaviour :gen_event

  @server :erl_signal_server

  @doc "Calls `fun` for each `signal` from now on. A function of the same `owner` is replaced."
  def add(signal, owner, fun) do
    # An owner that was killed has left its handler behind.
    delete(signal, owner)
    # SIGHUP would end the node unless somebody handles it; SIGTERM is OTP's in any case.
    if signal == :sighup, do: :os.set_signal(signal, :handle)
    :ok = :gen_event.add_handler(@server, id(signal, owner), {signal, fun})
  end

  @doc "Removes it. SIGHUP ends the node again, unless another handler may want it."
  def remove(signal, owner) do
    delete(signal, owner)

    if signal == :sighup and not Enum.any?(:gen_event.which_handlers(@server), &wants_sighup?/1),
      do: :os.set_signal(signal, :default)

    :ok
  end

  defp wants_sighup?(:erl_signal_handler), do: false
  defp wants_sighup?({__MODULE__, {signal, _owner}}), do: signal == :sighup
  defp wants_sighup?(_of_the_user), do: true

  defp delete(signal, owner), do: :gen_event.delete_handler(@server, id(signal, owner), :removed)

  defp id(signal, owner), do: {__MODULE__, {signal, owner}}

  @impl true
  def init(state), do: {:ok, state}

  @impl true
  def handle_event(signal, {signal, fun} = state) do
    fun.()
    {:ok, state}
  end

  def handle_event(_other, state), do: {:ok, state}

  @impl true
  def handle_call(_request, state), do: {:ok, :ok, state}
end
