defmodule ExServiceMeshRouter.Metrics do
  @moduledoc false
  # `/metrics`, at a port of its own or behind the gateway.

  alias ExServiceMeshRouter.{Http, ListenError, Prometheus, Routes, Service}
  alias ExServiceMeshRouter.PrivateListeners.SocketDir

  def child_spec(config) do
    %{id: __MODULE__, start: {__MODULE__, :start_link, [config]}}
  end

  def start_link(%{name: name, metrics: metrics}) do
    with {:ok, listen} <- listen(name, metrics), do: start_link(name, metrics, listen)
  end

  defp start_link(name, metrics, listen) do
    case Http.Server.start_link(listen: listen, handler: &answer(&1, name)) do
      {:ok, server} ->
        with {:local, path} <- listen, do: route(name, metrics.host, path)
        {:ok, server}

      {:error, {:shutdown, {:listen, reason}}} ->
        {:error, {:shutdown, refused(metrics, reason)}}

      other ->
        other
    end
  end

  @doc "The port that is listened on, or `nil`."
  def port(name) do
    children = Supervisor.which_children(Module.concat(name, Pages))

    with {_, server, _, _} when is_pid(server) <- List.keyfind(children, __MODULE__, 0),
         {_ip, port} when is_integer(port) <- Http.Server.address(server),
         do: port,
         else: (_ -> nil)
  end

  defp listen(_name, %{host: nil, ip: ip, port: port}), do: {:ok, {ip, port}}

  defp listen(name, _host) do
    case SocketDir.socket("metrics-#{inspect(name)}") do
      {:ok, path} -> {:ok, {:local, path}}
      {:error, why} -> {:error, {:shutdown, no_socket(why)}}
    end
  end

  defp no_socket(why) do
    detail = "#{why}; or use `metrics: [port: 9568]`, which needs no socket"
    %ListenError{kind: :other, address: "a Unix socket for metrics", detail: detail}
  end

  defp route(name, host, path),
    do: :ok = Routes.put(name, Service.static(host, [{:unix, path}], :config))

  defp answer(%{method: method}, _name) when method not in ["GET", "HEAD"],
    do: {405, [{"allow", "GET, HEAD"}], ""}

  defp answer(%{path: "/metrics"}, name) do
    type = "text/plain; version=0.0.4; charset=utf-8"
    {200, [{"content-type", type}, {"cache-control", "no-store"}], Prometheus.scrape(name)}
  end

  defp answer(_request, _name),
    do: {404, [{"content-type", "text/plain; charset=utf-8"}], "It is /metrics.\n"}

  defp refused(%{ip: ip, port: port}, reason) do
    kind = if reason in [:eaddrinuse, :eacces, :eaddrnotavail], do: reason, else: :other
    detail = reason |> :inet.format_error() |> List.to_string()
    %ListenError{kind: kind, address: "#{:inet.ntoa(ip)}:#{port}", detail: detail, port: port}
  end
end
