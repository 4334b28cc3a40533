defmodule Mix.Tasks.Mesh.Handover do
  @shortdoc "Shows which process has the gateway's port, and hands it over"

  @moduledoc """
  Shows which process has the gateway's port, and which one waits to take it over.

      mix mesh.handover
      mix mesh.handover --take
      mix mesh.handover --path /run/my_app/gateway.sock

  It asks through the socket of `config :ex_service_mesh_router, handover: "/path"`, as the user of the
  gateway. A release does the same with `bin/my_app eval 'ExServiceMeshRouter.Handover.print()'`.

  ## Options

    * `--take` - tells the gateway that waits with `take: :manual` to take the port over
    * `--path` - the path of the socket, if it is not the configured one
  """

  use Mix.Task

  alias ExServiceMeshRouter.Handover

  @impl true
  def run(arguments) do
    {options, _rest} = OptionParser.parse!(arguments, strict: [take: :boolean, path: :string])
    unless options[:path], do: Mix.Task.run("app.config")
    if options[:take], do: take(options[:path])
    Handover.print(options[:path])
  end

  defp take(path) do
    with {:error, why} <- Handover.take(path), do: Mix.raise("nothing is handed over: #{why}")
  end
end
