defmodule ExServiceMeshRouter.Tree do
  @moduledoc """
  The processes of a gateway, each with what it is: the module that it runs, `{:guard, module}`, or
  `{:helper, of}` for what one of them has spawned.
  """

  @doc "`[{kind, pid}]` of all that are linked to the gateway's supervisor, that one left out."
  def processes(gateway) do
    top = top(gateway)
    guards = for {id, pid, _, _} <- Supervisor.which_children(top), into: %{}, do: {pid, id}
    {:dictionary, dictionary} = Process.info(top, :dictionary)
    ancestors = for name <- dictionary[:"$ancestors"], do: whereis(name)
    walk([{top, nil}], MapSet.new([self() | ancestors]), guards) -- [{nil, top}]
  end

  def top(gateway), do: Process.whereis(Module.concat(gateway, Supervisor))

  defp whereis(pid) when is_pid(pid), do: pid
  defp whereis(name), do: Process.whereis(name)

  defp walk([], _seen, _guards), do: []

  defp walk([{pid, parent} | rest], seen, guards) do
    with false <- pid in seen,
         [links: links, dictionary: dictionary] <- Process.info(pid, [:links, :dictionary]) do
      kind = if parent || guards[pid], do: kind(pid, dictionary[:"$initial_call"], parent, guards)
      found = for link <- links, is_pid(link), do: {link, kind || :top}
      [{kind, pid} | walk(found ++ rest, MapSet.put(seen, pid), guards)]
    else
      _ -> walk(rest, seen, guards)
    end
  end

  defp kind(pid, {ExServiceMeshRouter.Gateway.Guard, _, _}, _parent, guards),
    do: {:guard, guards[pid]}

  defp kind(_pid, {:supervisor, module, _}, _parent, _guards), do: module
  defp kind(_pid, nil, parent, _guards), do: {:helper, parent}
  defp kind(_pid, {module, :init, _}, _parent, _guards), do: module
  defp kind(_pid, {module, _, _}, _parent, _guards), do: {:helper, module}
end
