defmodule ExServiceMeshRouter.Gateway.Signal do
  @moduledoc false
  # Calls functions when the node gets a signal: SIGTERM drains (Shutdown), SIGHUP reopens the access
  # log (Reporter). OTP's own handler, which stops the node on SIGTERM, runs after these.

  @behaviour :gen_event

  @server :erl_signal_server

  @doc "Calls `fun` on each `signal`. Replaces the function of the same `owner`."
  def add(signal, owner, fun) do
    # A killed owner leaves its handler behind.
    delete(signal, owner)
    # Unhandled, SIGHUP ends the node. OTP always handles SIGTERM.
    if signal == :sighup, do: :os.set_signal(signal, :handle)
    :ok = :gen_event.add_handler(@server, id(signal, owner), {signal, fun})
  end

  @doc "Removes the function. SIGHUP ends the node again, unless another handler may exist."
  def remove(signal, owner) do
    delete(signal, owner)

    if signal == :sighup and
         not Enum.any?(:gen_event.which_handlers(@server), &handles_sighup?/1),
       do: :os.set_signal(signal, :default)

    :ok
  end

  defp handles_sighup?(:erl_signal_handler), do: false
  defp handles_sighup?({__MODULE__, {signal, _owner}}), do: signal == :sighup
  defp handles_sighup?(_of_the_user), do: true

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
