defmodule BillingWeb.EventsController do
  use BillingWeb, :controller

  alias BillingWeb.Invoices

  def stream(conn, _params) do
    Invoices.subscribe(conn.assigns.tenant)

    conn
    |> put_resp_content_type("text/event-stream")
    |> put_resp_header("cache-control", "no-cache")
    |> send_chunked(200)
    |> loop()
  end

  defp loop(conn) do
    text =
      receive do
        {:invoice, invoice} -> "invoice of #{invoice.customer}: #{invoice.amount}"
      after
        1_000 -> Time.utc_now() |> Time.truncate(:second) |> to_string()
      end

    # Fails after the browser has disconnected.
    case chunk(conn, "data: #{text}\n\n") do
      {:ok, conn} -> loop(conn)
      {:error, _reason} -> conn
    end
  end
end
