defmodule ExServiceMeshRouter.Doctor.Startup do
  @moduledoc false
  # Runs the doctor once after the start of the system and logs the findings. It waits for all
  # applications, because the gateway starts before those that it routes to. With `mesh` it runs once more
  # when the other nodes have had time to connect.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.Doctor
  alias ExServiceMeshRouter.Doctor.{Finding, Snapshot}
  alias ExServiceMeshRouter.Gateway
  alias ExServiceMeshRouter.Gateway.Applications

  # The system has started if two checks find the same applications and none starting. The pause is
  # longer than an endpoint needs to bind.
  @pause 1_500
  # libcluster and dns_cluster look for nodes every five seconds.
  @connected 20_000

  def start_link(options), do: GenServer.start_link(__MODULE__, options)

  @impl true
  def init(options) do
    state = %{
      name: options[:name],
      pause: Keyword.get(options, :pause, @pause),
      connected: Keyword.get(options, :connected, @connected),
      before: nil,
      logged: []
    }

    {:ok, later(state)}
  end

  @impl true
  def handle_info(:look, %{before: before} = state) do
    case applications() do
      {:ok, running, []} when running == before ->
        if mesh?(state.name), do: Process.send_after(self(), :look_again, state.connected)
        {:noreply, look(state), :hibernate}

      {:ok, running, _starting} ->
        {:noreply, later(%{state | before: running})}

      # The node stops: findings are useless.
      :stopping ->
        {:noreply, state, :hibernate}
    end
  end

  def handle_info(:look_again, state), do: {:noreply, look(state), :hibernate}
  def handle_info(_other, state), do: {:noreply, state}

  defp look(state) do
    findings = Doctor.findings(state.name)
    log(findings -- state.logged)
    %{state | logged: findings}
  end

  defp mesh?(name) do
    Gateway.config(name).mesh != nil
  catch
    # The gateway has stopped.
    :exit, _reason -> false
  end

  @doc "Logs if a release has endpoints that listen but its gateway does not."
  def unserved(options, more \\ []) do
    with {:ok, %{release?: true} = snapshot} <- Snapshot.configured(options, more) do
      snapshot |> Doctor.examine() |> Enum.filter(&(&1.check == :server_missing)) |> log()
    end

    :ok
  end

  @doc "Logs each finding as one message."
  def log(findings), do: Enum.each(findings, &Logger.warning("mesh doctor: " <> Finding.text(&1)))

  defp later(state) do
    Process.send_after(self(), :look, state.pause)
    state
  end

  defp applications do
    with {:ok, running} <- Applications.running(),
         {:ok, starting} <- Applications.starting(),
         do: {:ok, running, starting}
  end
end
