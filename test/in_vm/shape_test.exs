defmodule ExServiceMeshRouter.InVm.ShapeTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.InVm.Shape

  defmodule Plug do
    def init(options), do: {:initialised, options}
    def call(conn, _options), do: conn
  end

  defp server(options), do: Shape.server({Bandit, :start_link, [[plug: Plug] ++ options]})

  test "accepts a Bandit, with the plug and the options that it would use" do
    options = [
      http_options: [compress: false],
      thousand_island_options: [num_acceptors: 2, shutdown_timeout: 7]
    ]

    assert {:ok, server} = server(options)
    assert server.start_plug.() == {Plug, {:initialised, []}}
    assert server.shutdown == 7
    assert server.options == %{http: [compress: false], http_1: [], http_2: [], websocket: []}
    assert {:ok, %{shutdown: 15_000}} = server([])
  end

  test "accepts the plugs that Bandit accepts" do
    fun = fn conn, _options -> conn end

    for {plug, initialised} <- [
          {{Plug, :given}, {Plug, {:initialised, :given}}},
          {fun, {fun, []}},
          {{fun, :given}, {fun, :given}}
        ] do
      assert {:ok, server} = Shape.server({Bandit, :start_link, [[plug: plug]]})
      assert server.start_plug.() == initialised
    end
  end

  test "says what does not fit" do
    assert Shape.server({:ranch_listener_sup, :start_link, []}) ==
             {:error, "its server is not Bandit"}

    assert server(scheme: :https) == {:error, "its server speaks TLS"}

    for key <- [:transport_module, :handler_module, :handler_options] do
      why = "thousand_island_options has #{inspect(key)}"
      assert server(thousand_island_options: [{key, Own}]) == {:error, why}
    end

    assert {:error, why} = Shape.server({Bandit, :start_link, [[plug: NoPlug]]})
    assert why == "its plug NoPlug has no call/2"
  end
end
