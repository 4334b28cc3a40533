defmodule ExServiceMeshRouter.UpstreamTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Upstream

  test "what users write" do
    for {text, upstream} <- [
          {"http://127.0.0.1:9001", {:tcp, {127, 0, 0, 1}, 9001}},
          {"http://127.0.0.1:9001/", {:tcp, {127, 0, 0, 1}, 9001}},
          {"http://127.0.0.1", {:tcp, {127, 0, 0, 1}, 80}},
          {"http://[::1]:9001", {:tcp, {0, 0, 0, 0, 0, 0, 0, 1}, 9001}},
          {"http://some_host-1.internal:9001", {:name, "some_host-1.internal", 9001}},
          {"unix:/run/app.sock", {:unix, "/run/app.sock"}},
          {"unix:///run/app.sock", {:unix, "/run/app.sock"}}
        ] do
      assert Upstream.parse(text) == {:ok, [upstream]}
    end

    assert Upstream.parse(["unix:/a", "http://b:1"]) ==
             {:ok, [{:unix, "/a"}, {:name, "b", 1}]}
  end

  test "the part that is wrong is named" do
    long = "unix:/" <> String.duplicate("a", 107)

    for text <-
          ["", "9001", "127.0.0.1:9001", "https://127.0.0.1:1", "http://", "http://a:0"] ++
            ["http://a:65536", "http://a:1/path", "http://a:1?q", "http://u@a:1", "http://a:1#f"] ++
            ["http://a b:1", "unix:relative", "unix:", "unix:/a\0b", long, nil, 1],
        do: assert(Upstream.parse(text) == {:error, text}, inspect(text))

    assert Upstream.parse(["http://a:1", "wrong"]) == {:error, "wrong"}
    assert Upstream.parse([]) == {:error, []}
    assert {:ok, _} = Upstream.parse("unix:/" <> String.duplicate("a", 106))
  end

  test "what a server is bound to is reached from this machine" do
    assert Upstream.from_bound({{0, 0, 0, 0}, 1}) == {:ok, {:tcp, {127, 0, 0, 1}, 1}}
    assert Upstream.from_bound({{192, 0, 2, 1}, 1}) == {:ok, {:tcp, {192, 0, 2, 1}, 1}}

    # IPv4 behind a socket of IPv6.
    assert Upstream.from_bound({{0, 0, 0, 0, 0, 0xFFFF, 0xC000, 0x0201}, 1}) ==
             {:ok, {:tcp, {192, 0, 2, 1}, 1}}

    assert Upstream.from_bound({{0, 0, 0, 0, 0, 0xFFFF, 0, 0}, 1}) ==
             {:ok, {:tcp, {127, 0, 0, 1}, 1}}

    assert Upstream.from_bound({:local, ~c"/run/a.sock"}) == {:ok, {:unix, "/run/a.sock"}}

    assert Upstream.from_bound(%{address: {127, 0, 0, 1}, port: 1}) ==
             {:ok, {:tcp, {127, 0, 0, 1}, 1}}

    for wrong <- [
          nil,
          {{127, 0, 0, 1}, 0},
          {{127, 0, 0, 1}, 65_536},
          {{1, 2}, 1},
          {"a", 1},
          :undefined
        ],
        do: assert(Upstream.from_bound(wrong) == :error)
  end

  test "is written as it was read" do
    for text <- ["http://127.0.0.1:9001", "http://[::1]:9001", "http://name:1", "unix:/a b"] do
      assert {:ok, [upstream]} = Upstream.parse(text)
      assert Upstream.to_string(upstream) == text
    end

    assert Upstream.to_native({:tcp, {0, 0, 0, 0, 0, 0, 0, 1}, 1}) == {:tcp, "::1", 1}
    assert Upstream.to_native({:unix, "/a"}) == {:unix, "/a"}
  end
end
