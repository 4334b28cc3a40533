defmodule ExServiceMeshRouter.Gateway.Shutdown do
  @moduledoc false
  # Drains the gateway before the node stops its endpoints.
  #
  # OTP stops applications in reverse order of their start, and the gateway started before the web
  # applications. It must therefore drain before the first application stops:
  #
  #   * SIGTERM: a handler beside OTP's own on `:erl_signal_server`. The latest handler is called
  #     first, so this one drains before OTP's stops the node.
  #   * `System.stop/0` (and `bin/app stop`): LastApplication, which starts after all others and
  #     therefore stops before them. It restarts when another application has started since.

  use GenServer

  alias ExServiceMeshRouter.Gateway
  alias ExServiceMeshRouter.Gateway.{Applications, LastApplication, Signal}

  # Waits until a starting system has settled: each restart of LastApplication leaves a line in the
  # log ("ex_service_mesh_router_drain exited"), which looks like a failure.
  @first_pause 500
  # Applications are rarely added to a running node.
  @longest_pause 10_000

  def start_link(config), do: GenServer.start_link(__MODULE__, config)

  @impl true
  def init(config) do
    Process.flag(:trap_exit, true)
    drain = fn -> Gateway.drain(config.name) end
    :ok = Signal.add(:sigterm, __MODULE__, drain)

    # In a separate process: a call to the application controller may have no answer when the node
    # begins to stop, and the controller waits for this GenServer to end.
    {:ok, spawn_link(fn -> watch(drain, @first_pause, nil) end)}
  end

  @impl true
  # The node stops.
  def handle_info({:EXIT, watcher, :normal}, watcher), do: {:noreply, watcher}
  def handle_info({:EXIT, watcher, reason}, watcher), do: {:stop, reason, watcher}
  def handle_info(_other, watcher), do: {:noreply, watcher}

  defp watch(drain, pause, before) do
    with {:ok, running} <- Applications.running(),
         {:ok, starting} <- Applications.starting(),
         {:ok, pause} <- settle(drain, pause, running, running == before and starting == []) do
      Process.sleep(pause)
      watch(drain, pause, running)
    end
  end

  # Returns the pause until the next check.
  defp settle(drain, pause, running, settled?) do
    cond do
      LastApplication.last?(running) -> {:ok, min(pause * 2, @longest_pause)}
      settled? -> with {:ok, _} <- LastApplication.start(drain), do: {:ok, @first_pause}
      true -> {:ok, @first_pause}
    end
  end

  @impl true
  def terminate(_reason, _watcher) do
    Signal.remove(:sigterm, __MODULE__)
    LastApplication.forget()
  end
end
