defmodule ExServiceMeshRouter.Doctor.UmbrellaTest do
  # Not async: the project at hand is Mix's, and there is one.
  use ExUnit.Case

  alias ExServiceMeshRouter.Doctor
  alias ExServiceMeshRouter.Doctor.{Snapshot, Umbrella}

  @dependency ~s|{:ex_service_mesh_router, path: "../../gateway"}|

  setup do
    root = Path.join(System.tmp_dir!(), "umbrella-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf(root) end)
    %{root: root, name: nil}
  end

  defp project(context, path, deps, more) do
    directory = Path.join(context.root, path)
    File.mkdir_p!(directory)
    module = Macro.camelize(String.replace(path, ~r/\W/, "_"))

    File.write!(Path.join(directory, "mix.exs"), """
    defmodule #{context.name}.#{module}X.MixProject do
      use Mix.Project
      def project, do: [version: "0.1.0", #{more}, deps: [#{deps}]]
    end
    """)
  end

  defp umbrella(context, root, web) do
    # Mix remembers projects by their modules and applications.
    number = System.unique_integer([:positive])
    context = %{context | name: "U#{number}", root: Path.join(context.root, "#{number}")}
    project(context, ".", root, ~s|apps_path: "apps"|)
    project(context, "apps/core#{number}", "", "app: :core#{number}")
    project(context, "apps/shop#{number}_web", web, "app: :shop#{number}_web")
    context
  end

  defp findings(context) do
    umbrella =
      Mix.Project.in_project(
        :"#{context.name}#{System.unique_integer([:positive])}",
        context.root,
        fn _ -> Umbrella.gather() end
      )

    {:ok, snapshot} = Snapshot.configured([discover: false], umbrella: umbrella)
    Doctor.examine(snapshot)
  end

  test "a dependency of the root only is found, and cured by what is printed", context do
    umbrella = umbrella(context, @dependency, "")
    assert [finding] = findings(umbrella)
    assert finding.check == :root_dependency
    assert finding.file =~ ~r"\Aapps/shop\d+_web/mix.exs, among the `deps`\z"
    assert finding.fix == ~s|{:ex_service_mesh_router, path: "../../../../gateway"}|

    umbrella = umbrella(context, @dependency, finding.fix)
    assert findings(umbrella) == []
  end

  test "one that is not started is as good as none", context do
    umbrella =
      umbrella(context, @dependency, ~s|{:ex_service_mesh_router, path: "x", runtime: false}|)

    assert [%{check: :root_dependency}] = findings(umbrella)
  end

  test "an umbrella whose applications depend on it needs no more", context do
    umbrella = umbrella(context, "", @dependency)
    assert findings(umbrella) == []
  end
end
