defmodule ExServiceMeshRouter.Gateway.LastApplication do
  @moduledoc false
  # An application that does nothing but end first: OTP stops applications in reverse order of their
  # start, and tells each before it does (`c:Application.prep_stop/1`).

  use Application

  alias ExServiceMeshRouter.Gateway.Applications

  @name :ex_service_mesh_router_drain

  @doc "Whether no application was started after it; `running` names the latest first."
  def last?(running), do: match?([@name | _], running)

  @doc "Starts it, anew if it runs already. `drain` is called when the node stops; `:stopping` if it does."
  def start(drain), do: Applications.ask(fn -> replace(drain) end)

  defp replace(drain) do
    remove()

    specification = [
      description: ~c"drains ex_service_mesh_router before the node stops",
      vsn: ~c"1",
      modules: [],
      registered: [],
      applications: [:kernel, :stdlib],
      mod: {__MODULE__, drain}
    ]

    with :ok <- :application.load({:application, @name, specification}) do
      Application.delete_env(@name, :removed, timeout: :infinity)
      :application.start(@name)
    end
  end

  @doc "Removes it without waiting: whoever asks may be stopped by the application controller."
  def forget do
    spawn(fn -> Applications.ask(&remove/0) end)
    :ok
  end

  # Not the end of the node: it must not drain.
  defp remove do
    Application.put_env(@name, :removed, true, timeout: :infinity)
    :application.stop(@name)
    :application.unload(@name)
  end

  @impl true
  def start(_type, drain) do
    with {:ok, supervisor} <- Supervisor.start_link([], strategy: :one_for_one),
         do: {:ok, supervisor, drain}
  end

  @impl true
  def prep_stop(drain) do
    unless Application.get_env(@name, :removed, false), do: drain.()
    drain
  end
end
