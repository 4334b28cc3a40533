defmodule Api.RequestController do
  use Phoenix.Controller, formats: [:json]

  def show(conn, _params) do
    json(conn, %{
      service: "api",
      tenant: conn.assigns.tenant,
      host: conn.host,
      port: conn.port,
      scheme: conn.scheme,
      remote_ip: conn.remote_ip |> :inet.ntoa() |> to_string(),
      request_id: conn |> Plug.Conn.get_resp_header("x-request-id") |> List.first()
    })
  end
end
