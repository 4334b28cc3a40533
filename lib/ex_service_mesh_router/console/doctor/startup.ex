defmodule ExServiceMeshRouter.Doctor.Startup do
  @moduledoc false
  # Looks once, when the system has come to rest, and logs what is wrong. The gateway starts before
  # the applications that it routes to; before they are up, everything would be wrong with them.

  use GenServer

  require Logger

  alias ExServiceMeshRouter.Doctor
  alias ExServiceMeshRouter.Doctor.{Finding, Snapshot}
  alias ExServiceMeshRouter.Gateway.Applications

  # Between two looks at which applications run; the same twice, and none about to start, is rest.
  # Longer than an endpoint takes to bind.
  @pause 1_500

  def start_link(options), do: GenServer.start_link(__MODULE__, options)

  @impl true
  def init(options) do
    state = %{name: options[:name], pause: Keyword.get(options, :pause, @pause), before: nil}
    {:ok, later(state)}
  end

  @impl true
  def handle_info(:look, %{before: before} = state) do
    case applications() do
      {:ok, running, []} when running == before ->
        state.name |> Doctor.findings() |> log()
        {:noreply, state, :hibernate}

      {:ok, running, _starting} ->
        {:noreply, later(%{state | before: running})}

      # There is nothing left to advise.
      :stopping ->
        {:noreply, state, :hibernate}
    end
  end

  def handle_info(_other, state), do: {:noreply, state}

  @doc "Logs that a release has endpoints that listen, and a gateway that was not told to."
  def unserved(options, more \\ []) do
    with {:ok, %{release?: true} = snapshot} <- Snapshot.configured(options, more) do
      snapshot |> Doctor.examine() |> Enum.filter(&(&1.check == :server_missing)) |> log()
    end

    :ok
  end

  @doc "Logs findings, each as one message."
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
