defmodule ExServiceMeshRouter.Console.Doctor.FixTest do
  # Not async: whether Phoenix serves is the VM's.
  #
  # The lines that the doctor prints are put where it says, into configurations as Phoenix generates
  # them, and Mix's own reader reads the result.
  use ExUnit.Case

  import ExServiceMeshRouter.EndpointStandIn

  alias ExServiceMeshRouter.Doctor
  alias ExServiceMeshRouter.Doctor.Snapshot

  # phx.new of 1.7.24: `http:` has all of its settings where an environment has its own.
  @phoenix_1_7 %{
    "dev.exs" => "config :APP, ENDPOINT, http: [ip: {127, 0, 0, 1}, port: 4000]",
    "prod.exs" => "config :APP, ENDPOINT, cache_static_manifest: \"m.json\"",
    "runtime.exs" => """
    if System.get_env("PHX_SERVER") do
      config :APP, ENDPOINT, server: true
    end

    if config_env() == :prod do
      port = String.to_integer(System.get_env("PORT") || "4000")

      config :APP, ENDPOINT,
        url: [host: "example.com", port: 443, scheme: "https"],
        http: [ip: {0, 0, 0, 0, 0, 0, 0, 0}, port: port]
    end
    """
  }

  # phx.new of 1.8.12: config/runtime.exs sets the port in every environment.
  @phoenix_1_8 %{
    "dev.exs" => "config :APP, ENDPOINT, http: [ip: {127, 0, 0, 1}]",
    "prod.exs" => "config :APP, ENDPOINT, force_ssl: [rewrite_on: [:x_forwarded_proto]]",
    "runtime.exs" => """
    if System.get_env("PHX_SERVER") do
      config :APP, ENDPOINT, server: true
    end

    config :APP, ENDPOINT, http: [port: String.to_integer(System.get_env("PORT", "4000"))]

    if config_env() == :prod do
      config :APP, ENDPOINT,
        url: [host: "example.com", port: 443, scheme: "https"],
        http: [ip: {0, 0, 0, 0, 0, 0, 0, 0}]
    end
    """
  }

  # phx.new.web of both: nothing for all environments, and of 1.8 no port at all.
  @web_1_7 %{
    @phoenix_1_7
    | "runtime.exs" => """
      if config_env() == :prod do
        config :APP, ENDPOINT,
          http: [
            ip: {0, 0, 0, 0, 0, 0, 0, 0},
            port: String.to_integer(System.get_env("PORT") || "4000")
          ]
      end
      """
  }
  @web_1_8 %{
    @phoenix_1_8
    | "runtime.exs" => """
      if config_env() == :prod do
        config :APP, ENDPOINT, http: [ip: {0, 0, 0, 0, 0, 0, 0, 0}]
      end
      """
  }

  @generations [phoenix_1_7: @phoenix_1_7, phoenix_1_8: @phoenix_1_8] ++
                 [web_1_7: @web_1_7, web_1_8: @web_1_8]

  setup do
    Application.put_env(:phoenix, :serve_endpoints, true)
    on_exit(fn -> Application.delete_env(:phoenix, :serve_endpoints) end)
    directory = Path.join(System.tmp_dir!(), "fix-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf(directory) end)
    %{root: directory}
  end

  defp generate(root, generation, number) do
    name = "fix#{number}"

    it = %{
      application: :"#{name}_web",
      endpoint: Module.concat([Macro.camelize(name) <> "Web", Endpoint])
    }

    File.mkdir_p!(Path.join(root, "config"))

    config = """
    config :APP, ENDPOINT, url: [host: "localhost"]
    import_config "\#{config_env()}.exs"
    """

    for {file, text} <- Map.merge(generation, %{"config.exs" => config, "test.exs" => ""}) do
      text =
        String.replace(
          text,
          ["APP", "ENDPOINT"],
          &%{"APP" => "#{it.application}", "ENDPOINT" => inspect(it.endpoint)}[&1]
        )

      File.write!(Path.join([root, "config", file]), "import Config\n" <> text)
    end

    define(it.application, it.endpoint, [])
    Map.put(it, :root, root)
  end

  # As Mix reads it before it starts an application.
  defp read(root, env) do
    [config, runtime] =
      for file <- ["config.exs", "runtime.exs"],
          do: Config.Reader.read!(Path.join([root, "config", file]), env: env)

    Config.Reader.merge(config, runtime)
  end

  defp findings(it, env, options) do
    config = read(it.root, env)
    Application.put_env(it.application, it.endpoint, config[it.application][it.endpoint])

    options =
      [discover: [only: [it.application]], doctor: [except: [:check_origin, :trusted_proxies]]] ++
        Keyword.merge([port: 4000], options)

    options = Config.Reader.merge([a: options], a: config[:ex_service_mesh_router] || [])[:a]
    {:ok, snapshot} = Snapshot.configured(options, development?: env == :dev)
    Doctor.examine(snapshot)
  end

  defp follow(it, finding) do
    [file, "at its end"] = String.split(finding.file, ", ")
    path = Path.join(it.root, file)
    File.write!(path, File.read!(path) <> "\n" <> finding.fix <> "\n")
  end

  # Follows what is printed, one line after the other, until nothing is left to say. No other
  # environment may be changed by that.
  defp cure(it, env, options) do
    others = for other <- [:dev, :test, :prod] -- [env], do: {other, read(it.root, other)}
    found = findings(it, env, options)
    Enum.each(found, &follow(it, &1))
    assert findings(it, env, options) == []

    for {other, before} <- others,
        do: assert(read(it.root, other) == before, "#{other} has changed")

    Enum.map(found, & &1.check)
  end

  defp each(root, fun) do
    for {{name, generation}, number} <- Enum.with_index(@generations) do
      number = System.unique_integer([:positive]) + number
      {name, root |> Path.join("#{name}") |> generate(generation, number) |> fun.()}
    end
  end

  test "nothing for a generated application in development", context do
    results = each(context.root, &findings(&1, :dev, []))
    assert results == [phoenix_1_7: [], phoenix_1_8: [], web_1_7: [], web_1_8: []]
  end

  test "for an endpoint on the gateway's port in development", context do
    results = each(context.root, &cure(&1, :dev, private_listeners: :never))

    assert results == [
             phoenix_1_7: [:endpoint_port],
             phoenix_1_8: [:endpoint_port],
             web_1_7: [:endpoint_port],
             web_1_8: [:endpoint_port, :url_port]
           ]
  end

  test "for links to another port in development", context do
    results = each(context.root, &cure(&1, :dev, port: 4080))
    assert for({_name, checks} <- results, uniq: true, do: checks) == [[:url_port]]
  end

  test "for an endpoint that listens for other machines in production", context do
    results =
      each(context.root, &cure(&1, :prod, port: 4080, ip: :any, private_listeners: :never))

    assert for({_name, checks} <- results, do: :public_listener in checks) == [
             true,
             true,
             true,
             true
           ]
  end

  test "for a release in which the gateway does not listen", context do
    Application.delete_env(:phoenix, :serve_endpoints)
    System.put_env("PHX_SERVER", "true")
    on_exit(fn -> System.delete_env("PHX_SERVER") end)

    it = generate(context.root, @phoenix_1_8, System.unique_integer([:positive]))
    config = read(it.root, :prod)
    Application.put_env(it.application, it.endpoint, config[it.application][it.endpoint])
    options = [discover: [only: [it.application]]]
    {:ok, snapshot} = Snapshot.configured(options, development?: false, release?: true)
    finding = snapshot |> Doctor.examine() |> Enum.find(&(&1.check == :server_missing))
    follow(it, finding)
    assert read(it.root, :prod)[:ex_service_mesh_router] == [server: true]
    assert read(it.root, :dev)[:ex_service_mesh_router] == nil
  end
end
