defmodule ExServiceMeshRouter.Listeners.TakeoverTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Listeners.Takeover

  # Phoenix keeps what it was started with in a table of the endpoint's name.
  test "for_running/3 keeps the options that an endpoint was started with" do
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

    assert RunningEndpoint |> Takeover.for_running(configured, settings) |> Enum.sort() == [
             check_origin: ["//given"],
             http: false,
             secret_key_base: "given",
             server: true,
             url: [host: "auth.localhost", port: 4000, path: "/"]
           ]

    assert Takeover.for_running(NoSuchEndpoint, configured, settings) == settings
  end
end
