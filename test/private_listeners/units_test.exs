defmodule ExServiceMeshRouter.PrivateListeners.UnitsTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.PrivateListeners.{Address, Policy, Running}

  describe "an address" do
    test "is what `http:` asks for" do
      assert Address.of(ip: {127, 0, 0, 1}, port: 4001) == {{127, 0, 0, 1}, 4001}
      assert Address.of(port: "4001") == {{0, 0, 0, 0}, 4001}
      assert {_any, 4000} = Address.of([])
      assert {_any, 4002} = Address.of([:inet6, port: 4002])
    end

    test "is nil where http: takes no port" do
      for http <- [nil, false, [port: 0], [port: "x"], [ip: {:local, "/s"}, port: 0]],
          do: assert(Address.of(http) == nil, inspect(http))
    end

    test "may not be had at once with another" do
      any4 = {{0, 0, 0, 0}, 1}
      any6 = {{0, 0, 0, 0, 0, 0, 0, 0}, 1}
      one = {{127, 0, 0, 1}, 1}
      other = {{127, 0, 0, 2}, 1}
      six = {{0, 0, 0, 0, 0, 0, 0, 1}, 1}

      for {a, b, overlap?} <- [
            {one, one, true},
            {one, other, false},
            {one, any4, true},
            {one, any6, true},
            {six, any6, true},
            {six, any4, false},
            {six, one, false},
            {any4, any6, true},
            {one, {{127, 0, 0, 1}, 2}, false},
            {one, nil, false},
            {nil, nil, false}
          ] do
        assert Address.overlap?(a, b) == overlap?, inspect({a, b})
        assert Address.overlap?(b, a) == overlap?, inspect({b, a})
      end
    end
  end

  test "the policy gives a listener to whom it says" do
    # mode, serves?, http => private?, instead?
    for {mode, serves?, http, private?, instead?} <- [
          {:auto, true, nil, true, true},
          {:auto, true, false, true, true},
          {:auto, true, [port: 4000], false, true},
          {:auto, false, nil, false, true},
          {:all, false, [port: 4000], true, true},
          {[E], false, [port: 4000], true, true},
          {[Other], true, nil, false, false},
          {:never, true, nil, false, false}
        ] do
      assert Policy.private?(mode, E, serves?, http) == private?, inspect({mode, serves?, http})
      assert Policy.instead?(mode, E) == instead?, inspect(mode)
    end
  end

  # Phoenix keeps what it was started with in a table of the endpoint's name.
  test "settings for a running endpoint keep what it was given when it started" do
    :ets.new(RunningEndpoint, [:named_table])
    configured = [url: [host: "localhost"], server: true, http: [port: 4000]]

    :ets.insert(RunningEndpoint, [
      {:__config__, self()},
      {:url, [host: "localhost", path: "/"]},
      {:server, true},
      {:http, [port: 4000]},
      {:secret_key_base, "given"},
      {:check_origin, ["//given"]},
      {{:cached, 1}, 2},
      {:static, :cache, 3}
    ])

    settings = [url: [host: "auth.localhost", port: 4000], server: true, http: false]

    assert RunningEndpoint |> Running.settings(configured, settings) |> Enum.sort() == [
             check_origin: ["//given"],
             http: false,
             secret_key_base: "given",
             server: true,
             url: [host: "auth.localhost", port: 4000, path: "/"]
           ]

    assert Running.settings(NoSuchEndpoint, configured, settings) == settings
  end
end
