defmodule ExServiceMeshRouter.Systemd.Startup do
  @moduledoc false
  # Waits until the system is ready. Then lets the gateway accept on the sockets of systemd, and tells
  # systemd that the VM is ready. Where an endpoint is not ready for long, the others must still be served:
  # the gateway accepts without it, and systemd is not told.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.{Gateway, Readiness}
  alias ExServiceMeshRouter.Gateway.Store
  alias ExServiceMeshRouter.Handover.State
  alias ExServiceMeshRouter.Systemd.{Activation, Notify}

  # Until another gateway has handed the port over.
  @pause 20
  # How often it says what is missing, if that changes.
  @patience 2_000
  # How long clients wait in the queues. Their own patience is about as long.
  @longest 30_000

  @doc "Returns whether there is anything to do."
  def wanted?, do: Activation.wanted?() or Notify.wanted?()

  def start_link({config, longest}), do: GenServer.start_link(__MODULE__, {config.name, longest})
  def start_link(config), do: start_link({config, @longest})

  @impl true
  def init({name, longest}) do
    Process.flag(:trap_exit, true)
    # A further gateway, in a supervision tree of the user, is not the VM.
    notify? = Notify.wanted?() and name == ExServiceMeshRouter
    if notify?, do: Store.put(name, :on_drain, &Notify.stopping/0)
    {:ok, spawn_link(fn -> await(name, notify?, nil, now(), longest) end)}
  end

  @impl true
  def handle_info({:EXIT, waiting, :normal}, waiting), do: {:noreply, waiting}
  def handle_info({:EXIT, waiting, reason}, waiting), do: {:stop, reason, waiting}
  def handle_info(_other, waiting), do: {:noreply, waiting}

  defp await(name, notify?, before, since, longest) do
    case Readiness.await(name, min(@patience, longest)) do
      :ok ->
        accept(name)
        if notify?, do: ready(name)

      {:missing, missing} ->
        if notify? or Activation.waiting?(name) do
          text = Enum.join(missing, ", ")
          if text != before, do: say(text, notify?)
          if now() - since >= longest, do: accept_late(name, longest, text)
          await(name, notify?, text, since, longest)
        end
    end
  end

  defp say(text, notify?) do
    Logger.info("ExServiceMeshRouter is not ready: #{text}")
    if notify?, do: Notify.waiting(text)
  end

  defp accept(name) do
    if Activation.waiting?(name) do
      Logger.info("ExServiceMeshRouter accepts connections on the sockets of systemd")
      Activation.accept(name)
    end
  end

  defp accept_late(name, longest, missing) do
    if Activation.waiting?(name) do
      Logger.warning(
        "ExServiceMeshRouter accepts connections on the sockets of systemd, though it is after " <>
          "#{longest / 1_000} s not ready: #{missing}"
      )

      Activation.accept(name)
    end
  end

  # A gateway that is ready to take over (`take: :manual`) has started, too.
  defp ready(name) do
    addresses = Enum.map_join(Gateway.addresses(name), " and ", &Gateway.text/1)

    cond do
      Gateway.draining?(name) -> :ok
      not State.taking?(name) -> Notify.ready("serving on #{addresses}")
      State.get(name, :ready) -> Notify.ready(State.text(name))
      true -> ready_later(name)
    end
  end

  defp ready_later(name) do
    Process.sleep(@pause)
    ready(name)
  end

  defp now, do: System.monotonic_time(:millisecond)
end
