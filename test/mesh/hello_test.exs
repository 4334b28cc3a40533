defmodule ExServiceMeshRouter.Mesh.HelloTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Mesh.Hello
  alias ExServiceMeshRouter.Registry.Service

  @key <<0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00>> <>
         String.duplicate("k", 32)

  # A process of a node that this one has never met: NEW_PID_EXT.
  defp remote_pid(node) do
    node = Atom.to_string(node)

    :erlang.binary_to_term(
      <<131, 88, 119, byte_size(node), node::binary, 1::32, 0::32, System.os_time(:second)::32>>
    )
  end

  defp hello(changes \\ %{}) do
    %{
      gateway: "ExServiceMeshRouter",
      key: @key,
      port: 4600,
      ips: ["10.0.0.2", "fdaa::2"],
      advertise: {"node1.example.com", 4600},
      state: :serving,
      services: [service()],
      seen: [Hello.incarnation(@key)]
    }
    |> Hello.build()
    |> Map.merge(%{node: "b@host", member: remote_pid(:b@host)})
    |> Map.merge(changes)
  end

  defp service(changes \\ %{}) do
    Map.merge(
      %{
        endpoint: "AuthWeb.Endpoint",
        application: "auth_web",
        hosts: ["auth.example"],
        since: 1_700_000_000_000
      },
      changes
    )
  end

  defp parse(term), do: Hello.parse(term, "ExServiceMeshRouter")

  defp error(term) do
    assert {:error, kind, text} = parse(term)
    assert String.printable?(text) and String.length(text) < 1_000
    {kind, text}
  end

  test "what is built is understood, and what a later version adds is ignored" do
    assert {:ok, hello} = parse(hello(%{answer: true}))
    assert hello.services == [service()]
    assert {:ok, _} = parse(hello(%{weight: 10, services: [service(%{digest: "abc"})]}))
    assert {:ok, _} = parse(hello(%{advertise: nil, services: [], seen: [], ips: []}))
    assert Hello.build(%{key: @key}).seq < Hello.build(%{key: @key}).seq
  end

  test "another version or another gateway is named" do
    assert {:version, text} = error(%{hello() | v: 2, library: "7.0.0"})
    assert text =~ ~s|speaks version 2 of the mesh (ex_service_mesh_router "7.0.0"), and this one|
    assert {:version, _} = error(%{v: "a\nline"})
    assert {:other_gateway, text} = error(%{hello() | gateway: "Other"})
    assert text =~ ~s|for the gateway "Other"; this one is ExServiceMeshRouter|
  end

  test "each field is checked, and the error names it" do
    long = String.duplicate("a", 256)

    for {field, values} <- [
          member: [nil, self(), "pid"],
          node: ["", long, :b@host],
          library: [nil, "a\nb"],
          incarnation: ["", String.duplicate("g", 32), 1],
          seq: [nil, 1.0, Bitwise.bsl(1, 70)],
          key: ["", String.duplicate("k", 44), <<@key::binary, 0>>],
          port: [0, 65_536, "4600"],
          ips: [nil, ["10.0.0.256"], ["host"], [{10, 0, 0, 1}], List.duplicate("10.0.0.1", 17)],
          advertise: ["10.0.0.1", {"a b", 1}, {"a", 0}, {"a", 1, 2}],
          state: [nil, :stopped, "serving"],
          seen: [nil, ["x"], [Hello.incarnation(@key) | "improper"]],
          answer: [nil, 1],
          checks: [nil, %{a: "x"}, %{"a" => long}, %{"a" => 1}],
          services: [
            nil,
            :services,
            [service() | :improper],
            List.duplicate(service(), 1_001),
            [service(%{hosts: []})],
            [service(%{hosts: nil})],
            [service(%{hosts: ["UPPER.example"]})],
            [service(%{hosts: ["a.example:80"]})],
            [service(%{hosts: ["localhost"]})],
            [service(%{hosts: ["mesh.localhost"]})],
            [service(%{hosts: ["mesh.invalid"]})],
            [service(%{hosts: List.duplicate("a.example", 101)})],
            [service(%{endpoint: "legacy.local"})],
            [service(%{endpoint: "the index"})],
            [service(%{endpoint: "A\r\nB: c"})],
            [service(%{application: :auth_web})],
            [service(%{since: nil})],
            [service(%{since: Bitwise.bsl(1, 90)})],
            [Map.delete(service(), :since)]
          ]
        ],
        value <- values do
      assert {:malformed, text} = error(hello(%{field => value}))
      assert text =~ "its `#{field}` is not", inspect(value)
      assert {:malformed, _} = error(Map.delete(hello(), field))
    end
  end

  test "a hello that contradicts itself is refused" do
    assert {:malformed, text} = error(hello(%{node: "c@host"}))
    assert text =~ ~s|it says that it is "c@host"|
    assert {:malformed, text} = error(hello(%{incarnation: String.duplicate("0", 32)}))
    assert text =~ "does not belong to its `key`"
  end

  test "no term is too strange" do
    for term <- [nil, 1, "x", [], [1 | 2], {}, %{}, self(), make_ref(), fn -> :ok end, <<1::3>>] do
      error(term)
      for field <- Map.keys(hello()), field != :v, do: parse(hello(%{field => term}))
      for field <- Map.keys(service()), do: parse(hello(%{services: [service(%{field => term})]}))
      assert Hello.sender(term) in [nil, node()]
    end
  end

  test "an endpoint is announced with the hosts that other nodes may have" do
    since = ~U[2024-01-01 00:00:00Z]

    entry = fn module, hosts ->
      Hello.service(%{Service.endpoint(module, :auth_web, hosts, [%{}]) | since: since})
    end

    assert entry.(AuthWeb.Endpoint, ["auth.example", "localhost", "mesh.localhost"]) ==
             service(%{since: DateTime.to_unix(since, :millisecond)})

    assert entry.(AuthWeb.Endpoint, ["localhost"]) == nil
    assert %{hosts: ["auth.localhost"]} = entry.(AuthWeb.Endpoint, ["auth.localhost"])
    assert %{endpoint: ":auth"} = entry.(:auth, ["a.example"])
  end

  # Functions of the VM call the module that a struct names.
  test "structs of modules that this node lacks are refused" do
    struct = %{__struct__: NoSuchModule}

    for {key, term} <- [
          {nil, Map.merge(hello(), struct)},
          {nil, Map.merge(hello(%{v: 9}), struct)},
          {:checks, hello(%{checks: struct})},
          {:services, hello(%{services: struct})},
          {:services, hello(%{services: [service(%{hosts: struct})]})},
          {:advertise, hello(%{advertise: struct})}
        ] do
      {kind, text} = error(term)
      assert kind == :malformed
      if key, do: assert(text =~ "`#{key}`")
    end
  end
end
