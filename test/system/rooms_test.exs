defmodule ExServiceMeshRouter.System.RoomsTest do
  # Each folder of lib/ex_service_mesh_router is a room, and a file beside it with its name belongs to it.
  # A room may use itself and the rooms before it in this list; the build, which nothing uses, almost none
  # of them. Update ARCHITECTURE.md with it.
  use ExUnit.Case

  import ExUnit.CaptureIO

  @rooms ~w(json config endpoint gateway plugs registry in_vm listeners discovery readiness handover systemd mesh http observe console) ++
           ~w(supervisor application test tasks nif_build)

  # What people call is made from the registry; what is above uses it as people do.
  defp room("lib/ex_service_mesh_router.ex"), do: "registry"
  defp room("lib/mix/tasks/compile.mesh_nif.ex"), do: "nif_build"
  defp room("lib/mix/tasks/" <> _), do: "tasks"

  defp room("lib/ex_service_mesh_router/" <> path),
    do: path |> String.split("/") |> hd() |> Path.rootname()

  defp before("nif_build"), do: ["json"]
  defp before(room), do: Enum.take_while(@rooms, &(&1 != room))

  # `mix xref graph` prints each file at the beginning of a line, and below it what that uses.
  defp uses do
    graph = capture_io(fn -> Mix.Task.rerun("xref", ["graph"]) end)

    for line <- String.split(graph, "\n"),
        [path] <- [Regex.run(~r"\S+\.ex\b", line)],
        reduce: [] do
      uses ->
        if String.starts_with?(line, path),
          do: [{path, []} | uses],
          else: [{elem(hd(uses), 0), [path | elem(hd(uses), 1)]} | tl(uses)]
    end
  end

  test "every file is in a room, and uses only rooms before its own" do
    uses = for {"lib/" <> _ = file, used} <- uses(), do: {file, used}
    assert length(uses) > 100
    assert for({file, _} <- uses, room(file) not in @rooms, do: file) == []

    upward =
      for {file, used} <- uses,
          "lib/" <> _ = path <- used,
          room = room(file),
          room(path) not in [room | before(room)],
          do: "#{file} (#{room}) uses #{path} (#{room(path)})"

    assert upward == []
  end
end
