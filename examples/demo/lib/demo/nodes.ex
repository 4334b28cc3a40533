defmodule Demo.Nodes do
  @moduledoc "Waits for the nodes of the demo and prints what to try with them."

  @pause 50

  @doc "Waits until every node answers for every service. Returns `{number, port, pid}` of each node."
  @spec await(keyword()) :: [{pos_integer(), :inet.port_number(), String.t()}]
  def await(cluster) do
    names = for number <- 1..cluster[:count], do: Demo.Cluster.node(number, cluster[:id])

    if Enum.all?(names, &ready?/1) do
      for {name, number} <- Enum.with_index(names, 1) do
        {port, pid} = :erpc.call(name, __MODULE__, :here, [])
        {number, port, pid}
      end
    else
      Process.sleep(@pause)
      await(cluster)
    end
  end

  # A node that is still starting cannot be called.
  defp ready?(name) do
    :erpc.call(name, __MODULE__, :routed?, [])
  catch
    _kind, _reason -> false
  end

  @doc false
  def here, do: {ExServiceMeshRouter.port(), System.pid()}

  # Each node has one endpoint.
  @doc false
  def routed? do
    {:ok, cluster} = Application.fetch_env(:demo, :cluster)
    upstreams = Enum.flat_map(ExServiceMeshRouter.services(), & &1.upstreams)
    length(upstreams) == cluster[:count]
  end

  @doc "Returns the text."
  @spec welcome([{pos_integer(), :inet.port_number(), String.t()}]) :: String.t()
  def welcome(nodes) do
    {last, port, pid} = List.last(nodes)
    [auth, billing] = for host <- Demo.Application.hosts(), do: "http://#{host}:#{port}"

    [first | _] =
      for {_, port, _} <- nodes, host <- Demo.Application.hosts(), do: "#{host}:#{port}"

    {victim, _, victim_pid} = Enum.at(nodes, -2)

    """

    #{Enum.map_join(nodes, "\n", fn {number, _port, pid} -> "node #{number} pid #{pid}" end)}

    Each node has a gateway of its own, and each answers for both services. auth runs on
    #{running_on(last - 1)}, billing on node #{last} only. Open in a browser; the page says which node served it:

    #{links(nodes)}

    Or paste; the response header x-served-by names the node:

      curl -si #{auth}/headers | grep x-served-by
      curl -si http://#{String.replace(first, "auth", "billing")}/headers | grep x-served-by

    Node #{last} has no auth, so it spreads the requests for it. Keep this running in another terminal, and
    kill nodes meanwhile:

      while sleep 0.1; do curl -s -o /dev/null -w '%{http_code} %header{x-served-by}\\n' #{auth}/headers; done

      #{padded("kill #{victim_pid}")}  node #{victim} finishes what it has and ends; the others go on without it
      #{padded("kill -9 #{victim_pid}")}  the same at once; a GET that it had is repeated elsewhere
      #{padded("kill -STOP #{victim_pid}")}  node #{victim} is silent: its requests wait up to 2 s once, then go elsewhere
      #{padded("kill -CONT #{victim_pid}")}  it serves again
      #{padded("kill #{pid}")}  nobody else has billing: #{billing |> URI.parse() |> Map.fetch!(:host)} is a 404 at the other nodes

    Ctrl-C stops all of them.
    """
  end

  defp running_on(1), do: "node 1"
  defp running_on(2), do: "nodes 1 and 2"
  defp running_on(count), do: "nodes 1 to #{count}"

  defp links(nodes) do
    Enum.map_join(nodes, "\n", fn {number, port, _pid} ->
      urls = for host <- Demo.Application.hosts(), do: "http://#{host}:#{port}/"
      "  node #{number}   " <> Enum.join(urls, "   ")
    end)
  end

  defp padded(command), do: String.pad_trailing(command, 18)
end
