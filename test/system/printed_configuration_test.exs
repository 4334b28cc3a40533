defmodule ExServiceMeshRouter.System.PrintedConfigurationTest do
  # Configuration that README, guides and messages print has to have an effect in applications as
  # Phoenix generates them. 1.7 says the port in config/dev.exs, 1.8 in config/runtime.exs for all
  # environments, which takes precedence over everything else.
  use ExUnit.Case, async: true

  @root File.cwd!()
  @documents ["README.md" | Path.wildcard("guides/*.md", [])]
  @applications [auth_web: AuthWeb.Endpoint, billing_web: BillingWeb.Endpoint]

  @config """
  import Config

  for {application, endpoint} <- #{inspect(@applications)} do
    config application, endpoint, url: [host: "localhost"], adapter: Bandit.PhoenixAdapter
  end

  # HERE
  import_config "\#{config_env()}.exs"
  """

  @runtime """
  import Config

  for {application, endpoint} <- #{inspect(@applications)} do
    if config_env() == :prod do
      config application, endpoint, url: [host: "example.com", port: 443, scheme: "https"]
    end

    HTTP
  end

  # HERE
  :ok
  """

  @port ~s|http: [port: String.to_integer(System.get_env("PORT", "4000"))]|
  @ip "http: [ip: {0, 0, 0, 0, 0, 0, 0, 0}]"

  @generated %{
    "1.7" => %{
      dev: "http: [ip: {127, 0, 0, 1}, port: 4000], check_origin: false",
      runtime: """
      if config_env() == :prod do
        config application, endpoint, #{@port}
        config application, endpoint, #{@ip}
      end
      """
    },
    "1.8" => %{
      dev: "http: [ip: {127, 0, 0, 1}], check_origin: false",
      runtime: """
      config application, endpoint, #{@port}
      if config_env() == :prod, do: config(application, endpoint, #{@ip})
      """
    }
  }

  setup do
    directory = Path.join(System.tmp_dir!(), "printed#{System.unique_integer([:positive])}")
    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    %{directory: directory}
  end

  # The files as they are generated, with these lines in one of them.
  defp generate(directory, version, file, lines) do
    generated = @generated[version]
    dev = "import Config\nfor {application, endpoint} <- #{inspect(@applications)}, do: "

    files = %{
      "config.exs" => @config,
      "dev.exs" => dev <> "config(application, endpoint, #{generated.dev})\n# HERE\n",
      "prod.exs" => "import Config\n# HERE\n",
      "runtime.exs" => String.replace(@runtime, "HTTP", generated.runtime)
    }

    for {name, content} <- files do
      content = String.replace(content, "# HERE", if(name == file, do: lines, else: ""))
      directory |> Path.join(name) |> File.write!(content)
    end
  end

  defp read(directory, environment) do
    read = &Config.Reader.read!(Path.join(directory, &1), env: environment)
    Config.Reader.merge(read.("config.exs"), read.("runtime.exs"))
  end

  defp alone(directory, environment, lines) do
    path = Path.join(directory, "alone.exs")
    File.write!(path, "import Config\n" <> lines)
    Config.Reader.read!(path, env: environment)
  end

  # Everything that is said is what there is, however deep.
  defp effective?(said, there) do
    if Keyword.keyword?(said) and said != [] do
      Enum.all?(said, fn {key, value} ->
        is_list(there) and List.keymember?(there, key, 0) and effective?(value, there[key])
      end)
    else
      said == there
    end
  end

  defp assert_effective(directory, file, lines, where) do
    for version <- Map.keys(@generated), environment <- [:dev, :prod] do
      generate(directory, version, file, lines)
      said = alone(directory, environment, lines)
      there = read(directory, environment)

      assert said == [] or effective?(said, there), """
      #{where}: in #{file} of an application that Phoenix #{version} has generated, these lines have \
      no effect in #{environment}:

      #{lines}
      """
    end
  end

  # `{document, file, lines}` of every example that configures something. Which file it belongs to is
  # said in a comment; where it configures the gateway alone, any will do.
  defp examples do
    for document <- @documents,
        [lines] <-
          Regex.scan(~r/^```elixir\n(.*?)^```/ms, File.read!(Path.join(@root, document)),
            capture: :all_but_first
          ),
        lines =~ ~r/^ *config /m,
        # What a guide says to remove.
        not (lines =~ "config :main_proxy") do
      case Regex.run(~r|^# config/(\w+\.exs)|m, lines) do
        [_, file] -> {document, file, lines}
        nil -> {document, nil, lines}
      end
    end
  end

  test "in the README and the guides works in generated applications", context do
    assert length(examples()) > 10

    for {document, file, lines} <- examples() do
      other = Keyword.keys(alone(context.directory, :prod, lines)) -- gateway()
      assert file || other == [], "#{document} does not say which file these are for:\n#{lines}"
      assert_effective(context.directory, file || "config.exs", lines, document)
    end
  end

  # What Phoenix generates nothing about.
  defp gateway, do: [:ex_service_mesh_router, :phoenix]

  test "in messages works in generated applications", context do
    error = %ExServiceMeshRouter.ListenError{
      kind: :eaddrinuse,
      port: 4000,
      address: "127.0.0.1:4000",
      holder: {:auth_web, AuthWeb.Endpoint}
    }

    message = Exception.message(error)
    assert message =~ "at the end of config/runtime.exs"
    lines = Regex.scan(~r/`(config [^`]+)`/, message, capture: :all_but_first)
    assert [_, _] = lines
    for [line] <- lines, do: assert_effective(context.directory, "runtime.exs", line, "the error")
  end
end
