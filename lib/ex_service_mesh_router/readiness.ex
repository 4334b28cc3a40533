defmodule ExServiceMeshRouter.Readiness do
  @moduledoc false
  # Tells whether the system behind a gateway is ready: all applications have started, discovery has an
  # answer of every endpoint, and every endpoint that should listen does. An endpoint that no
  # application starts, or that has no `http:` which the gateway could reach, is not waited for.

  alias ExServiceMeshRouter.{Discovery, Gateway}
  alias ExServiceMeshRouter.Discovery.GrpcServers
  alias ExServiceMeshRouter.Gateway.{Applications, LastApplication}
  alias ExServiceMeshRouter.Registry.Resolver

  @pause 50
  # Under Mix, applications start one after another, with moments in between when none is starting.
  @settled 300

  @doc "Returns texts that name what is missing; `[]` if the system is ready."
  @spec missing(module()) :: [String.t()]
  def missing(name) do
    with [] <- applications(), do: listeners(name)
  end

  @doc """
  Returns `:ok` once the system is ready, or what is missing after `timeout` milliseconds.

  It must have been ready for a moment, and all endpoints are probed again after the applications have
  started.
  """
  @spec await(module(), timeout()) :: :ok | {:missing, [String.t()]}
  def await(name, timeout) do
    # A number is less than an atom.
    deadline = if timeout == :infinity, do: :infinity, else: now() + timeout
    await_applications(name, nil, now(), deadline)
  end

  defp await_applications(name, before, since, deadline) do
    {running, missing} = {running(), applications()}
    since = if running == before and missing == [], do: since, else: now()

    cond do
      missing == [] and now() - since >= @settled ->
        probe_all(name)
        await_listeners(name, running, deadline)

      now() >= deadline ->
        {:missing, if(missing == [], do: ["applications were just started"], else: missing)}

      true ->
        Process.sleep(@pause)
        await_applications(name, running, since, deadline)
    end
  end

  defp await_listeners(name, running, deadline) do
    missing = missing(name)

    cond do
      running() != running ->
        await_applications(name, nil, now(), deadline)

      missing == [] ->
        :ok

      now() >= deadline ->
        {:missing, missing}

      true ->
        Process.sleep(@pause)
        await_listeners(name, running, deadline)
    end
  end

  defp running do
    with {:ok, running} <- Applications.running(), do: LastApplication.others(running)
  end

  defp applications do
    case Applications.starting() do
      :stopping ->
        ["the node is stopping"]

      {:ok, starting} ->
        case LastApplication.others(starting) do
          [] -> if Applications.booting?(), do: ["applications are starting"], else: []
          starting -> for it <- starting, do: "application #{it} is starting"
        end
    end
  end

  defp listeners(name) do
    %{discover: discover} = Gateway.config(name)
    names(name) ++ if(discover == false, do: [], else: Discovery.missing(name))
  catch
    :exit, _reason -> ["discovery is starting"]
  end

  defp names(name) do
    if Resolver.looked_up?(name), do: [], else: ["names of upstreams are being looked up"]
  end

  # A discovery that restarts probes all endpoints anyway.
  defp probe_all(name) do
    %{discover: discover, grpc: grpc} = Gateway.config(name)
    if grpc != %{}, do: GrpcServers.look(name)
    if discover != false, do: Discovery.probe_all(name)
  catch
    :exit, _reason -> :ok
  end

  defp now, do: System.monotonic_time(:millisecond)
end
