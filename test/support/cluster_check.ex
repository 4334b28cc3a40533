defmodule ExServiceMeshRouter.ClusterCheck do
  @moduledoc """
  Judges what clients of a cluster saw while faults were made, by what its endpoints have noted.

    * What was answered with 200 was executed.
    * No POST was executed twice.
    * A request fails only if a fault explains it: the gateway that it came to was killed or stopped; a
      POST was under way on a node that was killed, or stopped and not yet known to be; an endpoint that
      was stopped had the request.
  """

  # How long after a fault another node may still send requests there.
  @known %{kill: 100, stop: 2_000, partition: 2_000, mesh_port: 2_000, endpoint: 100}

  @doc "Returns `%{executed:, failed:, excused:, twice:, lost:}`."
  def verdict(results, history, folder) do
    executed = executed(folder)
    {answered, failed} = Enum.split_with(results, &match?({:ok, _}, &1.answer))
    {excused, failed} = Enum.split_with(failed, &excused?(&1, history))
    posts = for %{method: :post, id: id} <- results, into: MapSet.new(), do: id

    %{
      executed: executed,
      failed: failed,
      excused: length(excused),
      twice: for({id, count} <- executed, count > 1, id in posts, do: id),
      lost:
        for(
          %{method: m, id: id} <- answered,
          m != :web_socket,
          not is_map_key(executed, id),
          do: id
        )
    }
  end

  defp executed(folder) do
    for file <- File.ls!(folder),
        line <- folder |> Path.join(file) |> File.stream!(),
        [id, _size] = String.split(line) do
      id
    end
    |> Enum.frequencies()
  end

  defp excused?(result, history), do: Enum.any?(history, &explains?(&1, result))

  defp explains?(%{kind: kind, node: node} = fault, %{entry: node} = result)
       when kind in [:kill, :stop],
       do: during?(fault, result)

  defp explains?(%{kind: :endpoint} = fault, result), do: begun_before?(fault, result)

  defp explains?(%{kind: kind} = fault, %{method: method} = result)
       when kind in [:kill, :stop, :partition, :mesh_port] and method != :get,
       do: begun_before?(fault, result)

  defp explains?(_fault, _result), do: false

  defp during?(fault, result), do: result.began <= fault.ended and result.ended >= fault.began

  defp begun_before?(fault, result),
    do: result.began <= fault.made + @known[fault.kind] and result.ended >= fault.began

  @doc "Describes failures with the faults around them."
  def explain(failed, history) do
    for result <- Enum.take(failed, 10), into: "" do
      faults = for fault <- history, abs(fault.began - result.ended) < 10_000, do: fault

      near =
        for f <- faults,
            do:
              "#{f.kind} of node #{f.node} #{f.began - result.began}..#{f.ended - result.began} ms"

      "#{result.method} #{result.id} at node #{result.entry} after #{result.ended - result.began} ms: " <>
        "#{inspect(result.answer)}; #{Enum.join(near, ", ")}\n"
    end
  end
end
