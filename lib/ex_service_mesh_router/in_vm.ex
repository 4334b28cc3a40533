defmodule ExServiceMeshRouter.InVm do
  @moduledoc false
  # Serves requests without a socket: the data plane hands them to processes of this VM, which run Bandit's
  # own pipeline. The socket of an endpoint stays for WebSockets, and for all requests of an endpoint that
  # does not fit.
  #
  # Must not know how endpoints are found and what listens for them.

  alias ExServiceMeshRouter.InVm.{Dispatchers, Shape}

  @doc "Returns whether an endpoint is to be served so, by the option `in_vm`."
  def wanted?(:auto, _endpoint), do: true
  def wanted?(list, endpoint) when is_list(list), do: endpoint in list
  def wanted?(false, _endpoint), do: false

  @doc """
  Starts the dispatchers of an endpoint unless they run. `start` is that of its server's child
  specification. Returns `{:ok, pids}`, or `{:error, why}` if requests must use the socket.
  """
  def ensure(endpoint, start) do
    with {:ok, server} <- Shape.server(start),
         [] <- Dispatchers.all(endpoint),
         {:ok, _pid} <- start(endpoint, Map.put(server, :label, {__MODULE__, endpoint})) do
      {:ok, Dispatchers.all(endpoint)}
    else
      [_ | _] = pids ->
        {:ok, pids}

      {:error, why} when is_binary(why) ->
        {:error, why}

      {:error, reason} ->
        {:error, "its dispatchers do not start: #{Exception.format_exit(reason)}"}
    end
  catch
    :exit, _reason -> {:error, "the endpoint is stopping"}
  end

  # Another probe, or that of another gateway, may be faster.
  defp start(endpoint, server) do
    with {:error, {:already_started, pid}} <-
           Supervisor.start_child(endpoint, {Dispatchers, {endpoint, server}}),
         do: {:ok, pid}
  end

  @doc "Stops the dispatchers of an endpoint, after the requests that they have begun."
  defdelegate stop(endpoint), to: Dispatchers
end
