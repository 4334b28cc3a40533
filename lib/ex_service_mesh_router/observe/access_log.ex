defmodule ExServiceMeshRouter.AccessLog do
  @moduledoc """
  A line for every request, whatever became of it.

      config :ex_service_mesh_router, access_log: [format: :combined, to: "/var/log/mesh.log"]

    * `format` - `:common` and `:combined` are those of web servers; `:json` and `:logfmt` have
      service, sizes, durations, request id, trace id and errors as well; `reason` says what was wrong
      with a `bad_request` or a `bad_response`
    * `to` - a file, written by the data plane itself, or `:logger`, where lines are of level info
      with the metadata `mesh: :access_log`
    * `query` - whether query strings are logged; they may have secrets in them

  Neither `Cookie` nor `Authorization` is ever logged. What clients send is escaped: nobody can write
  a line of his own. Texts are cut after 2048 bytes.

  A request never waits for its line. When a disk or Logger is slower than the requests, lines are
  dropped, counted (`records_lost` of `:gateway` in `ExServiceMeshRouter.stats/0`), and a warning
  says how many.

  A file that was moved away is opened anew after `reopen/0`, and when the node gets SIGHUP, which is
  what log rotation usually sends.
  """

  alias ExServiceMeshRouter.{Gateway, Native}

  @doc "Opens the file of the access log anew, under its name."
  @spec reopen(module()) :: :ok
  def reopen(name \\ ExServiceMeshRouter), do: name |> Gateway.ref() |> Native.reopen_log()
end
