defmodule ExServiceMeshRouter.Config.UpstreamTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Config.Upstream

  @any6 {0, 0, 0, 0, 0, 0, 0, 0}
  @loopback6 {0, 0, 0, 0, 0, 0, 0, 1}

  defp http2(upstream), do: Map.put(upstream, :protocol, :http2)

  test "to_string/1 returns the text that parse/1 reads" do
    for {text, upstream} <- [
          {"http://127.0.0.1:9001", Upstream.tcp({127, 0, 0, 1}, 9001)},
          {"http://[::1]:9001", Upstream.tcp(@loopback6, 9001)},
          {"http://some-host.local:9001", %{kind: :name, host: "some-host.local", port: 9001}},
          {"unix:/run/app.sock", Upstream.unix("/run/app.sock")},
          {"h2c://127.0.0.1:50051", http2(Upstream.tcp({127, 0, 0, 1}, 50_051))},
          {"h2c://[::1]:50051", http2(Upstream.tcp(@loopback6, 50_051))},
          {"h2c://grpc.local:50051", http2(%{kind: :name, host: "grpc.local", port: 50_051})},
          {"h2c+unix:/run/grpc.sock", http2(Upstream.unix("/run/grpc.sock"))}
        ] do
      assert Upstream.parse(text) == {:ok, [upstream]}
      assert Upstream.to_string(upstream) == text
    end

    assert Upstream.parse("http://a:1/") == {:ok, [%{kind: :name, host: "a", port: 1}]}
    assert Upstream.parse("http://a") == {:ok, [%{kind: :name, host: "a", port: 80}]}
    assert Upstream.parse("unix:///run/app.sock") == {:ok, [Upstream.unix("/run/app.sock")]}

    assert Upstream.parse(["http://127.0.0.1:1", "unix:/a"]) ==
             {:ok, [Upstream.tcp({127, 0, 0, 1}, 1), Upstream.unix("/a")]}
  end

  test "parse/1 returns the part that it cannot read" do
    long = "unix:/" <> String.duplicate("a", 107)

    for wrong <-
          ["https://a:1", "http://a:0", "http://a:65536", "http://a:1/path", "http://a:1?b"] ++
            ["http://u@a:1", "http://:1", "a:1", "unix:relative", "unix:/a\0b", long, :a, nil] ++
            ["h2c://a", "h2c://a:1/path", "h2c:/a", "h2c+unix:a", "h2c+http://a:1"] do
      assert Upstream.parse(wrong) == {:error, wrong}
      assert Upstream.parse(["http://a:1", wrong]) == {:error, wrong}
    end

    assert Upstream.parse([]) == {:error, []}
  end

  test "from_bound/1 returns an address at which the endpoint can be reached" do
    for {bound, upstream} <- [
          {{{127, 0, 0, 1}, 4001}, Upstream.tcp({127, 0, 0, 1}, 4001)},
          {{{10, 0, 0, 1}, 4001}, Upstream.tcp({10, 0, 0, 1}, 4001)},
          {{{0, 0, 0, 0}, 4001}, Upstream.tcp({127, 0, 0, 1}, 4001)},
          {{@loopback6, 4001}, Upstream.tcp(@loopback6, 4001)},
          # Phoenix's generated runtime.exs: both families, or one of them.
          {{@any6, 4001}, %{kind: :loopback, port: 4001}},
          {{{0, 0, 0, 0, 0, 0xFFFF, 0x7F00, 1}, 4001}, Upstream.tcp({127, 0, 0, 1}, 4001)},
          {{{0, 0, 0, 0, 0, 0xFFFF, 0, 0}, 4001}, Upstream.tcp({127, 0, 0, 1}, 4001)},
          {%{address: @any6, port: 4001}, %{kind: :loopback, port: 4001}},
          {{:local, ~c"/run/a"}, Upstream.unix("/run/a")},
          {{:local, "/run/a"}, Upstream.unix("/run/a")}
        ] do
      assert Upstream.from_bound(bound) == {:ok, upstream}
    end

    for wrong <- [
          nil,
          {{127, 0, 0, 1}, 0},
          {{1, 2, 3}, 1},
          {"127.0.0.1", 1},
          :local,
          {@any6, nil}
        ] do
      assert Upstream.from_bound(wrong) == :error
    end
  end

  test "to_native/1 returns the data plane's term for each kind" do
    assert Upstream.to_native(Upstream.tcp(@loopback6, 1)) == %{kind: :tcp, ip: "::1", port: 1}
    assert Upstream.to_native(%{kind: :loopback, port: 1}) == %{kind: :loopback, port: 1}
    assert Upstream.to_native(Upstream.unix("/a")) == Upstream.unix("/a")
    assert Upstream.to_string(%{kind: :loopback, port: 1}) == "http://localhost:1"

    assert Upstream.to_native(http2(Upstream.unix("/a"))) ==
             %{kind: :unix, path: "/a", protocol: :http2}

    name = http2(%{kind: :name, host: "a", port: 1})
    assert Upstream.resolve(name, %{"a" => [@loopback6]}) == [http2(Upstream.tcp(@loopback6, 1))]

    # What else an upstream has is the data plane's, too.
    weighted = Map.put(Upstream.tcp(@loopback6, 1), :weight, 2)
    assert Upstream.to_native(weighted) == %{kind: :tcp, ip: "::1", port: 1, weight: 2}
  end
end
