defmodule ExServiceMeshRouter.System.PackageTest do
  # What `mix hex.build` would pack, without Hex: package()[:files], expanded as Hex does.
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.NifBuild.{Info, Sources, Target}

  @root File.cwd!()

  defp files do
    for pattern <- Mix.Project.config()[:package][:files],
        path <- Path.wildcard(pattern, match_dot: true),
        file <-
          if(File.dir?(path), do: Path.wildcard(path <> "/**", match_dot: true), else: [path]),
        File.regular?(file),
        do: file
  end

  defp missing(needed), do: Enum.uniq(needed) -- files()

  test "lists only existing files" do
    for pattern <- Mix.Project.config()[:package][:files], not (pattern =~ "priv/native") do
      assert Path.wildcard(pattern, match_dot: true) != [],
             "#{pattern} in mix.exs matches nothing"
    end
  end

  test "has all files that Elixir compiles and reads" do
    {:ok, modules} = :application.get_key(:ex_service_mesh_router, :modules)

    resources =
      for module <- modules,
          {:external_resource, paths} <- module.__info__(:attributes),
          path <- paths,
          do: Path.relative_to(path, @root)

    refute resources == []
    own = Enum.reject(resources, &(&1 =~ ~r{^(test|examples)/}))
    assert missing(own ++ Path.wildcard("lib/**/*.ex") ++ ["mix.exs"]) == []
  end

  test "has all files that decide whether a precompiled library fits" do
    assert missing(Sources.files()) == []
  end

  test "has all files that rustc has read" do
    # Cargo writes it beside the library: `LIBRARY: FILE FILE ...`.
    list = Path.join(System.get_env("CARGO_TARGET_DIR") || "target", "release/libmesh_nif.d")

    case File.read(list) do
      {:ok, rule} ->
        [_library, sources] = String.split(rule, ": ", parts: 2)
        read = sources |> String.split() |> Enum.map(&Path.relative_to(&1, @root))
        assert "native/mesh_nif/src/lib.rs" in read
        assert missing(read) == []

      {:error, :enoent} ->
        IO.puts("Not compared with what rustc reads: cargo has built nothing in #{list}")
    end
  end

  test "has nothing else" do
    allowed =
      ~r{^(lib/|guides/|priv/grafana/|priv/native/[^/]+-[^/]+/mesh_nif\.(so|info)$|native/mesh_(core|nif|wire)/(src/|Cargo\.toml$|build\.rs$)|[^/]+$|\.cargo/config\.toml$)}

    assert Enum.reject(files(), &(&1 =~ allowed)) == []
    assert Enum.filter(files(), &(&1 =~ ~r/(~|\.orig|\.rej|\.swp|\.tar)$/)) == []
  end

  test "has the metadata that a registry requires" do
    project = Mix.Project.config()
    assert project[:package][:licenses] == ["Apache-2.0"]
    assert is_map(project[:package][:links])
    assert String.length(project[:description]) in 1..300
    assert "LICENSE" in files()
  end

  describe "an umbrella and a single application that depend on it" do
    setup do
      dir = Path.join(System.tmp_dir!(), "mesh-package-#{System.unique_integer([:positive])}")
      on_exit(fn -> File.rm_rf!(dir) end)

      for file <- files() do
        copy = Path.join([dir, "package", file])
        File.mkdir_p!(Path.dirname(copy))
        File.cp!(file, copy)
      end

      # The library of this checkout, as scripts/precompile would have made it.
      target = Target.running()
      library = File.read!("priv/native/mesh_nif.so")

      info =
        %{
          "target" => target.triple,
          "nif" => "2.15",
          "sources" => Sources.fingerprint(),
          "md5" => Info.md5(library)
        }
        |> Map.merge(if target.glibc, do: %{"glibc" => target.glibc}, else: %{})

      write(dir, "package/priv/native/#{target.triple}-2.15/mesh_nif.so", library)
      write(dir, "package/priv/native/#{target.triple}-2.15/mesh_nif.info", Info.format(info))
      %{dir: dir}
    end

    defp write(dir, path, content) do
      path = Path.join(dir, path)
      File.mkdir_p!(Path.dirname(path))
      File.write!(path, content)
    end

    defp application(dir, name, options) do
      write(dir, "#{name}/mix.exs", """
      defmodule #{Macro.camelize(Path.basename(name))}.MixProject do
        use Mix.Project

        def project do
          [app: :#{Path.basename(name)}, version: "0.1.0", #{options}
           deps: [{:ex_service_mesh_router, path: "#{dir}/package"}]]
        end
      end
      """)
    end

    defp mix!(dir, arguments) do
      {output, status} =
        System.cmd("mix", arguments,
          cd: dir,
          env: [
            {"MIX_ENV", "prod"},
            {"CARGO", "/nowhere/cargo"},
            {"MESH_BUILD", nil},
            {"ERL_FLAGS", nil}
          ],
          stderr_to_stdout: true
        )

      assert status == 0, output
      output
    end

    @request """
    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, ExServiceMeshRouter.port(), [:binary, active: false])
    :ok = :gen_tcp.send(socket, "GET / HTTP/1.1\\r\\nHost: nobody.example\\r\\n\\r\\n")
    {:ok, answer} = :gen_tcp.recv(socket, 0, 5000)
    IO.puts(answer)
    """
    @config "import Config\nconfig :ex_service_mesh_router, server: true, port: 0\n"

    # It is compiled once, as all of it; that takes a while on a busy machine.
    @tag timeout: 300_000
    test "compile it without cargo and serve", %{dir: dir} do
      write(dir, "umbrella/mix.exs", """
      defmodule Umbrella.MixProject do
        use Mix.Project
        def project, do: [apps_path: "apps", version: "0.1.0", deps: []]
      end
      """)

      paths = for key <- ~w(build lockfile deps config), do: umbrella_path(key)
      application(dir, "umbrella/apps/web", Enum.join(paths))
      application(dir, "single", ~s(build_path: "../umbrella/_build", ))

      for project <- ~w(umbrella single) do
        write(dir, "#{project}/config/config.exs", @config)
        project = Path.join(dir, project)
        output = mix!(project, ["deps.compile"])
        assert output =~ "precompiled data plane" == String.ends_with?(project, "umbrella")
        refute output =~ "warning:"
        mix!(project, ["compile"])
        assert mix!(project, ["run", "-e", @request]) =~ "404"
      end
    end

    defp umbrella_path("build"), do: ~s(build_path: "../../_build", )
    defp umbrella_path("lockfile"), do: ~s(lockfile: "../../mix.lock", )
    defp umbrella_path("deps"), do: ~s(deps_path: "../../deps", )
    defp umbrella_path("config"), do: ~s(config_path: "../../config/config.exs", )
  end
end
