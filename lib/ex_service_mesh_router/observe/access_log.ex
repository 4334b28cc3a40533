defmodule ExServiceMeshRouter.AccessLog do
  @moduledoc """
  Writes one line for every request, including refused and failed ones.

      config :ex_service_mesh_router, access_log: [format: :combined, to: "/var/log/mesh.log"]

    * `format` (default `:combined`) - `:common` and `:combined` are the formats of web servers; `:json`
      and `:logfmt` also have service, sizes, durations, request id, trace id and errors; `reason`
      describes a `bad_request` or a `bad_response`, and `grpc_status` is that of a gRPC call
    * `to` (default `:logger`) - the path of a file, which the data plane writes itself, or `:logger`:
      lines then have level info and the metadata `mesh: :access_log`
    * `query` (default `false`) - whether lines contain query strings, which may have secrets

  Lines never contain `Cookie` or `Authorization`. Texts from clients are escaped and cut after 2048
  bytes, so a client cannot forge a line.

  A request that another node serves (`mesh`) has its line at the gateway that the client has asked.

  A request never waits for its line. If the disk or Logger is slower than the requests, lines are
  dropped and counted (`records_lost` of `:gateway` in `ExServiceMeshRouter.stats/0`), and a warning
  has their number.

  `reopen/0`, or a SIGHUP to the node, as log rotation sends it, opens the file again after it was
  moved.
  """

  alias ExServiceMeshRouter.{Gateway, Native}

  @doc "Reopens the file of the access log at its path."
  @spec reopen(module()) :: :ok
  def reopen(name \\ ExServiceMeshRouter), do: name |> Gateway.ref() |> Native.reopen_log()
end
