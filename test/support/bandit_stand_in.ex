# The parts of Bandit and Plug that requests without a socket touch, in their shape: the transport protocol,
# the pipeline, the errors. The pipeline has no Plug, so plugs of tests use `Bandit.Pipeline`'s functions.

defprotocol Bandit.HTTPTransport do
  @moduledoc false
  def peer_data(transport)
  def sock_data(transport)
  def ssl_data(transport)
  def version(transport)
  def read_headers(transport)
  def read_data(transport, options)
  def send_headers(transport, status, headers, disposition)
  def send_data(transport, data, end_request)
  def sendfile(transport, path, offset, length)
  def ensure_completed(transport)
  def supported_upgrade?(transport, protocol)
  def send_on_error(transport, error)
end

defmodule Bandit.HTTPError do
  @moduledoc false
  defexception message: nil, plug_status: :bad_request
end

defmodule Bandit.TransportError do
  @moduledoc false
  defexception message: nil, error: nil
end

defmodule Plug.Exception do
  @moduledoc false
  def status(%{plug_status: status}), do: status
  def status(_error), do: 500
end

defmodule Plug.Conn.Status do
  @moduledoc false
  def code(:request_timeout), do: 408
  def code(status) when is_integer(status), do: status
end

defmodule Bandit.Pipeline do
  @moduledoc "The pipeline, and what Plug.Conn and Bandit's adapter do for plugs."

  alias Bandit.HTTPTransport

  require Logger

  def run(transport, {plug, options}, span, {secure?, address}, opts) do
    {:ok, method, {_scheme, host, port, path}, headers, transport} =
      HTTPTransport.read_headers(transport)

    conn = %{
      adapter: {__MODULE__, transport},
      method: method,
      path: path,
      req_headers: headers,
      remote_ip: address,
      scheme: if(secure?, do: :https, else: :http),
      host: host,
      port: port
    }

    metadata = %{conn: conn, plug: {plug, options}, options: opts}
    metadata = Map.put(metadata, :connection_telemetry_span_context, span.telemetry_span_context)
    :telemetry.execute([:bandit, :request, :start], %{}, metadata)

    try do
      %{adapter: {_, transport}} = conn |> plug.call(options) |> sent(conn)
      {:ok, HTTPTransport.ensure_completed(transport)}
    catch
      kind, reason ->
        error = Exception.normalize(kind, reason, __STACKTRACE__)
        Logger.error(Exception.format(kind, reason, __STACKTRACE__), domain: [:bandit])
        HTTPTransport.send_on_error(transport, error)
        {:error, error}
    end
  end

  defp sent(text, conn) when is_binary(text), do: respond(conn, 200, [], text)
  defp sent(conn, _conn), do: conn

  def get_peer_data(transport), do: HTTPTransport.peer_data(transport)
  def get_sock_data(transport), do: HTTPTransport.sock_data(transport)
  def version(%{adapter: {_, transport}}), do: HTTPTransport.version(transport)

  def read(%{adapter: {_, transport}} = conn, options \\ []) do
    {tag, data, transport} = HTTPTransport.read_data(transport, options)
    {tag, IO.iodata_to_binary(data), with_transport(conn, transport)}
  end

  def respond(%{method: method} = conn, status, headers, body) do
    headers = [{"content-length", "#{IO.iodata_length(body)}"} | headers]

    if method == "HEAD" or status in [204, 304],
      do: conn |> head(status, headers, :no_body) |> told(),
      else: conn |> head(status, headers, :raw) |> data(body, true) |> told()
  end

  def chunked(conn, status, headers \\ []),
    do: conn |> head(status, headers, :chunk_encoded) |> told()

  def chunk(conn, data) do
    {:ok, data(conn, data, data == "")}
  rescue
    error in Bandit.TransportError -> {:error, error.error}
  end

  def file(conn, path, offset, length) do
    %{adapter: {_, transport}} = conn = head(conn, 200, [{"content-length", "#{length}"}], :raw)

    conn |> with_transport(HTTPTransport.sendfile(transport, path, offset, length)) |> told()
  end

  def inform(conn, status, headers), do: head(conn, status, headers, :inform)

  defp head(%{adapter: {_, transport}} = conn, status, headers, disposition),
    do: with_transport(conn, HTTPTransport.send_headers(transport, status, headers, disposition))

  defp data(%{adapter: {_, transport}} = conn, data, end?),
    do: with_transport(conn, HTTPTransport.send_data(transport, data, end?))

  defp told(conn) do
    send(self(), {:plug_conn, :sent})
    conn
  end

  defp with_transport(%{adapter: {module, _}} = conn, transport),
    do: %{conn | adapter: {module, transport}}
end
