defmodule ExServiceMeshRouter.Gateway.LastApplication do
  @moduledoc false
  # An application that drains the gateway when the node stops. OTP stops applications in reverse
  # order of their start and calls `c:Application.prep_stop/1` first, so it must be the last to start.

  use Application

  alias ExServiceMeshRouter.Gateway.Applications

  @name :ex_service_mesh_router_drain

  @doc "Returns whether it started last; `running` has the last started application first."
  def last?(running), do: match?([@name | _], running)

  @doc "Returns the other applications of a list."
  def others(applications), do: List.delete(applications, @name)

  @doc "Starts or restarts it. It calls `drain` when the node stops. `:stopping` if the node stops already."
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

  @doc "Removes it without waiting, because the application controller may wait for the caller."
  def forget do
    spawn(fn -> Applications.ask(&remove/0) end)
    :ok
  end

  # This stop must not drain.
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
