defmodule ExServiceMeshRouter.Console.Doctor.UmbrellaTest do
  # Not async: the project at hand is Mix's, and there is one.
  use ExUnit.Case

  import ExServiceMeshRouter.EndpointStandIn, only: [define: 3]

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

    options = Map.get(context, :options, discover: false)
    {:ok, snapshot} = Snapshot.configured(options, umbrella: umbrella)
    Doctor.examine(snapshot)
  end

  test "a dependency of the root only is found, and the printed line fixes it", context do
    umbrella = umbrella(context, @dependency, "")
    assert [finding] = findings(umbrella)
    assert finding.check == :root_dependency
    assert finding.file =~ ~r"\Aapps/shop\d+_web/mix.exs, among the `deps`\z"
    assert finding.fix == ~s|{:ex_service_mesh_router, path: "../../../../gateway"}|

    umbrella = umbrella(context, @dependency, finding.fix)
    assert findings(umbrella) == []
  end

  test "a dependency with runtime: false does not count", context do
    umbrella =
      umbrella(context, @dependency, ~s|{:ex_service_mesh_router, path: "x", runtime: false}|)

    assert [%{check: :root_dependency}] = findings(umbrella)
  end

  test "an umbrella whose applications depend on it has no finding", context do
    umbrella = umbrella(context, "", @dependency)
    assert findings(umbrella) == []
  end

  describe "endpoints that start before the gateway" do
    setup do
      before = Application.get_env(:phoenix, :serve_endpoints)
      Application.put_env(:phoenix, :serve_endpoints, true)

      on_exit(fn ->
        if before == nil,
          do: Application.delete_env(:phoenix, :serve_endpoints),
          else: Application.put_env(:phoenix, :serve_endpoints, before)
      end)
    end

    # Three generated applications that all want port 4000. Mix starts each after those that it depends
    # on, and the others in an order of its own.
    defp generated(context, deps, http \\ [port: 4000]) do
      number = System.unique_integer([:positive])
      context = %{context | name: "U#{number}", root: Path.join(context.root, "#{number}")}
      project(context, ".", "", ~s|apps_path: "apps"|)

      only =
        for letter <- ~w(a b c) do
          app = "#{letter}late#{number}_web"
          deps = deps |> Map.get(letter, "") |> String.replace("NUMBER", "#{number}")
          project(context, "apps/#{app}", deps, "app: :#{app}")
          endpoint = Module.concat(Macro.camelize(app), "Endpoint")
          define(String.to_atom(app), endpoint, http: http, server: nil)
          String.to_atom(app)
        end

      Map.put(context, :options, discover: [only: only], dev_domain: nil)
    end

    test "with the same port are found, and the printed line fixes them", context do
      b = "{:alateNUMBER_web, in_umbrella: true}"
      c = "{:blateNUMBER_web, in_umbrella: true}, " <> @dependency
      umbrella = generated(context, %{"b" => b, "c" => c})
      assert [finding] = findings(umbrella) |> Enum.filter(&(&1.check == :late_start))
      assert finding.problem =~ ~r/\AAlate\d+Web.Endpoint and Blate\d+Web.Endpoint start before/
      assert finding.file =~ ~r"\Aapps/alate\d+_web/mix.exs, among the `deps`\z"
      assert finding.fix == @dependency

      cured = generated(context, %{"a" => finding.fix, "b" => b, "c" => c})
      refute :late_start in checks(cured)
      without_ports = generated(context, %{"b" => b, "c" => c}, false)
      refute :late_start in checks(without_ports)
    end

    test "are none if an application that all depend on starts the gateway", context do
      core = "{:clateNUMBER_web, in_umbrella: true}"
      umbrella = generated(context, %{"a" => core, "b" => core, "c" => @dependency})
      refute :late_start in checks(umbrella)
    end

    test "can be a single one, which hands its port over", context do
      b = "{:alateNUMBER_web, in_umbrella: true}, " <> @dependency
      umbrella = generated(context, %{"b" => b, "c" => "{:blateNUMBER_web, in_umbrella: true}"})
      refute :late_start in checks(umbrella)
    end

    defp checks(umbrella), do: for(finding <- findings(umbrella), do: finding.check)
  end
end
