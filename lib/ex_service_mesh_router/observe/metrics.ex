defmodule ExServiceMeshRouter.Metrics do
  @moduledoc false
  # Serves `/metrics` on a separate port or behind the gateway. On a separate port it refuses hosts
  # that a web site could point to this machine (DNS rebinding).

  require Logger

  alias ExServiceMeshRouter.{Handover, Http, ListenError, Prometheus, Registry}
  alias ExServiceMeshRouter.Config.{Host, Upstream}
  alias ExServiceMeshRouter.Http.Request
  alias ExServiceMeshRouter.Listeners.SocketDir
  alias ExServiceMeshRouter.Registry.Service

  @again 500

  def child_spec(config) do
    %{id: __MODULE__, start: {__MODULE__, :start_link, [config]}}
  end

  def start_link(%{name: name, metrics: metrics}) do
    with {:ok, listen} <- listen(name, metrics), do: start_link(name, metrics, listen)
  end

  # Adds the route first: a failure after the server has started would leave the server behind.
  defp start_link(name, metrics, listen) do
    handler = &{checked(&1, metrics, name), &1}
    options = [handler: handler, keep_alive: false, name: process_name(name)] ++ listen

    case listen[:ip] do
      {:local, path} ->
        route(name, metrics.host, path)
        SocketDir.listen(path, fn -> Http.Server.start_link(options) end)

      _address ->
        with {:error, {:shutdown, reason}} <- Http.Server.start_link(options) do
          if reason == :eaddrinuse and Handover.taking?(name),
            do: start_later(options, metrics),
            else: {:error, {:shutdown, refused(metrics, reason)}}
        end
    end
  end

  # The VM whose port this one takes over has that of the metrics, too.
  defp start_later(options, metrics) do
    Logger.info(
      "port #{metrics.port} for metrics is in use; /metrics answers there when the VM that hands its port " <>
        "over has ended"
    )

    {:ok, spawn_link(fn -> Process.flag(:trap_exit, true) && start_later(options) end)}
  end

  defp start_later(options) do
    receive do
      {:EXIT, _server, {:shutdown, :eaddrinuse}} -> start_later(options)
      {:EXIT, _pid, reason} -> exit(reason)
    after
      @again ->
        case Http.Server.start_link(options) do
          {:ok, _server} -> receive do: ({:EXIT, _pid, reason} -> exit(reason))
          {:error, _reason} -> start_later(options)
        end
    end
  end

  @doc "Returns the port of the server, or `nil`."
  def port(name) do
    with server when is_pid(server) <- name |> process_name() |> Process.whereis(),
         do: URI.parse(Http.Server.url(server)).port
  end

  defp process_name(name), do: Module.concat(name, Metrics)

  defp listen(_name, %{host: nil, ip: ip, port: port}), do: {:ok, [ip: ip, port: port]}

  defp listen(name, _host) do
    case SocketDir.socket("metrics-#{inspect(name)}") do
      {:ok, path} -> {:ok, [ip: {:local, path}]}
      {:error, why} -> {:error, {:shutdown, no_socket(why)}}
    end
  end

  defp no_socket(why) do
    detail = "#{why}; or configure `metrics: [port: 9568]`, which needs no socket"
    %ListenError{kind: :other, address: "a Unix socket for metrics", detail: detail}
  end

  defp route(name, host, path),
    do: :ok = Registry.put(name, Service.static(host, [Upstream.unix(path)], :config))

  defp checked(request, metrics, name) do
    if metrics.host != nil or request |> Request.all("host") |> trusted?(),
      do: answer(request, name),
      else: refused_host()
  end

  # Browsers always send the field.
  defp trusted?([]), do: true

  defp trusted?([field]) do
    with {:ok, host, _port} <- Host.parse(field),
         do: Host.address?(host) or Host.private?(host) or host in machine(),
         else: (:error -> false)
  end

  # This machine's name, short and with its domain.
  defp machine do
    {:ok, name} = :inet.gethostname()
    for name <- [name, :net_adm.localhost()], do: name |> to_string() |> String.downcase(:ascii)
  end

  defp refused_host do
    body =
      "This host name is not allowed. Request metrics by an IP address, localhost, or the name of " <>
        "this machine.\n"

    {403, [{"content-type", "text/plain; charset=utf-8"}], body}
  end

  defp answer(%{method: method}, _name) when method not in ["GET", "HEAD"],
    do: {405, [{"allow", "GET, HEAD"}], ""}

  defp answer(%{path: "/metrics"}, name) do
    type = "text/plain; version=0.0.4; charset=utf-8"
    {200, [{"content-type", type}, {"cache-control", "no-store"}], Prometheus.scrape(name)}
  end

  defp answer(_request, _name),
    do:
      {404, [{"content-type", "text/plain; charset=utf-8"}],
       "Not found. Metrics are at /metrics.\n"}

  defp refused(%{ip: ip, port: port}, reason) do
    kind = if reason in [:eaddrinuse, :eacces, :eaddrnotavail], do: reason, else: :other
    detail = reason |> :inet.format_error() |> List.to_string()
    %ListenError{kind: kind, address: "#{:inet.ntoa(ip)}:#{port}", detail: detail, port: port}
  end
end
