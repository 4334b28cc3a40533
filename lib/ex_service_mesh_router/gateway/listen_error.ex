defmodule ExServiceMeshRouter.ListenError do
  @moduledoc """
  The reason why the gateway cannot listen and the application does not start.

  `kind` is `:eaddrinuse`, `:eacces`, `:eaddrnotavail`, `:library` (the NIF cannot be loaded),
  `:config` (the data plane rejects its configuration), `:workers` (too few dirty IO schedulers for
  the gateways of this VM), `:handover` (the port cannot be taken over from a running gateway) or
  `:other`. `holder` is `{application, endpoint}` if an endpoint of this
  system has the port.
  """

  alias ExServiceMeshRouter.Gateway.PortUse

  defexception [:kind, :address, :port, :detail, :holder]

  @impl true
  def message(%{kind: :eaddrinuse, holder: {application, endpoint}} = error) do
    """
    port #{error.port} is in use (#{error.address}): #{inspect(endpoint)} of this system listens \
    there. Give it another port at the end of config/runtime.exs, \
    `config #{inspect(application)}, #{inspect(endpoint)}, http: [port: #{error.port + 1}]`, or \
    let the gateway listen for it: \
    `config :ex_service_mesh_router, private_listeners: :auto`.\
    """
  end

  def message(%{kind: :eaddrinuse} = error) do
    """
    port #{error.port} is in use (#{error.address})#{by(error.port)}. Stop that process, or give the \
    gateway another port: `config :ex_service_mesh_router, port: 4080`. To give an endpoint of this \
    umbrella another port, put `config :my_app, MyAppWeb.Endpoint, http: [port: 4001]` at the end of \
    config/runtime.exs.\
    """
  end

  def message(%{kind: :eacces} = error) do
    """
    no permission to listen on #{error.address}. Ports below 1024 need a privilege \
    (CAP_NET_BIND_SERVICE on Linux). Grant it or choose another port: \
    `config :ex_service_mesh_router, port: 4000`.\
    """
  end

  def message(%{kind: :eaddrnotavail} = error) do
    """
    cannot listen on #{error.address}: this machine has no such address. \
    `config :ex_service_mesh_router, ip: ...` takes :loopback, :any, or addresses of this machine.\
    """
  end

  def message(%{kind: :library} = error) do
    """
    the data plane's library cannot be loaded: #{error.detail}. Rebuild it with `mix compile --force` \
    in ex_service_mesh_router (as a dependency: `mix deps.compile ex_service_mesh_router --force`). \
    MESH_BUILD=1 builds it with cargo even if a precompiled one exists. Build a release on the system \
    that it runs on.\
    """
  end

  def message(%{kind: :workers} = error) do
    """
    too many workers in this VM: #{error.detail}. Each worker of each gateway takes one dirty IO \
    scheduler, and file IO needs two of them. Run fewer gateways at the same time (in tests: \
    `mix test --max-cases 4`), give them fewer `workers`, or start the VM with more schedulers: \
    `elixir --erl "+SDio 20"`, in a release `+SDio 20` in vm.args.\
    """
  end

  def message(%{kind: :handover} = error) do
    """
    the port #{error.port} cannot be taken over from a running gateway: #{error.detail}. Without \
    `config :ex_service_mesh_router, handover: ...` the gateway listens as usual.\
    """
  end

  def message(%{kind: :config} = error),
    do: "the data plane rejects its configuration: #{error.detail}"

  def message(error), do: "cannot listen on #{error.address}: #{error.detail}"

  # `ss` may have the permission that this VM lacks.
  defp by(port) do
    case PortUse.holder(port) do
      %{pid: nil} -> " by another process (find it with `ss -ltnp 'sport = :#{port}'`)"
      %{pid: pid, command: command} -> " by process #{pid} (#{command})"
    end
  end
end
