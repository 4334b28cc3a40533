defmodule ExServiceMeshRouter.Gateway.Shutdown do
  @moduledoc false
  # Drains the gateway before the node takes its endpoints away.
  #
  # OTP stops applications in reverse order of their start, and the gateway started before the web
  # applications: without further ado its clients would meet endpoints that are gone. Two ways lead
  # down, and both are met before the first application stops:
  #
  #   * SIGTERM: a handler beside OTP's own on `:erl_signal_server`. Handlers are called latest
  #     first, so ours drains, and then OTP's stops the node.
  #   * `System.stop/0` (and `bin/app stop`): a tiny application, started after all others and
  #     therefore stopped before them. When others have started since, it is started anew.

  use GenServer

  alias ExServiceMeshRouter.Gateway
  alias ExServiceMeshRouter.Gateway.{Applications, LastApplication, Signal}

  # A system that starts is left to come to rest first: each new start of the last application
  # leaves a line in the log ("ex_service_mesh_router_drain exited"), which looks like a failure.
  @rest 500
  # An application that is added to a running node is rare; this is for it to be noticed.
  @longest_pause 10_000

  def start_link(config), do: GenServer.start_link(__MODULE__, config)

  @impl true
  def init(config) do
    Process.flag(:trap_exit, true)
    drain = fn -> Gateway.drain(config.name) end
    :ok = Signal.add(:sigterm, __MODULE__, drain)

    # In a process of its own: a question to the application controller at the moment when the node
    # begins to stop may have no answer, and the controller waits for this process to end.
    {:ok, spawn_link(fn -> look(drain, @rest, nil) end)}
  end

  @impl true
  # The node stops.
  def handle_info({:EXIT, looking, :normal}, looking), do: {:noreply, looking}
  def handle_info({:EXIT, looking, reason}, looking), do: {:stop, reason, looking}
  def handle_info(_other, looking), do: {:noreply, looking}

  defp look(drain, pause, before) do
    with {:ok, running} <- Applications.running(),
         {:ok, starting} <- Applications.starting(),
         {:ok, pause} <- settle(drain, pause, running, running == before and starting == []) do
      Process.sleep(pause)
      look(drain, pause, running)
    end
  end

  # How long to wait until the next look.
  defp settle(drain, pause, running, at_rest?) do
    cond do
      LastApplication.last?(running) -> {:ok, min(pause * 2, @longest_pause)}
      at_rest? -> with {:ok, _} <- LastApplication.start(drain), do: {:ok, @rest}
      true -> {:ok, @rest}
    end
  end

  @impl true
  def terminate(_reason, _looking) do
    Signal.remove(:sigterm, __MODULE__)
    LastApplication.forget()
  end
end
