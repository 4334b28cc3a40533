defmodule ExServiceMeshRouter.ListenError do
  @moduledoc """
  Why the gateway cannot listen: the reason with which the application refuses to start.

  `kind` is `:eaddrinuse`, `:eacces`, `:eaddrnotavail`, `:library` (the NIF cannot be loaded),
  `:config` (the data plane refuses its configuration), `:workers` (the gateways of this VM have taken
  the dirty IO schedulers) or `:other`. `holder` is the application and
  the endpoint of this system that has the port, if one has it.
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
    port #{error.port} is in use (#{error.address})#{by(error.port)}. Stop that, or let the gateway \
    listen elsewhere: `config :ex_service_mesh_router, port: 4080`. An endpoint of this umbrella \
    takes another port with `config :my_app, MyAppWeb.Endpoint, http: [port: 4001]` at the end of \
    config/runtime.exs.\
    """
  end

  def message(%{kind: :eacces} = error) do
    """
    no permission to listen on #{error.address}. Ports below 1024 need a privilege \
    (CAP_NET_BIND_SERVICE on Linux); or choose another one: \
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
    the data plane's library cannot be loaded: #{error.detail}. `mix compile --force` in \
    ex_service_mesh_router (as a dependency: `mix deps.compile ex_service_mesh_router --force`) \
    builds it anew, with MESH_BUILD=1 by cargo whatever was precompiled; a release has to be built \
    on the system it runs on.\
    """
  end

  def message(%{kind: :workers} = error) do
    """
    too many workers in this VM: #{error.detail}. Each worker of each gateway takes a dirty IO \
    scheduler, and the file IO of the VM needs two of them. Run fewer gateways at once (tests that \
    start their own: `mix test --max-cases 4`), give them fewer `workers`, or start the VM with more \
    schedulers: `elixir --erl "+SDio 20"`, in a release `+SDio 20` in vm.args.\
    """
  end

  def message(%{kind: :config} = error),
    do: "the data plane refuses its settings: #{error.detail}"

  def message(error), do: "cannot listen on #{error.address}: #{error.detail}"

  # Where the system does not say it, there is a command that may be allowed to ask.
  defp by(port) do
    case PortUse.holder(port) do
      %{pid: nil} -> "; `ss -ltnp 'sport = :#{port}'` names who has it"
      %{pid: pid, command: command} -> " by process #{pid} (#{command})"
    end
  end
end
