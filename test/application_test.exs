defmodule ExServiceMeshRouter.ApplicationTest do
  # Not async: there is one application, and its configuration.
  use ExServiceMeshRouter.GatewayCase

  alias ExServiceMeshRouter.EndpointStandIn

  @application :ex_service_mesh_router

  setup do
    before = Application.get_all_env(@application)

    on_exit(fn ->
      Application.stop(@application)
      Application.delete_env(:phoenix, :serve_endpoints)

      for {key, _} <- Application.get_all_env(@application),
          do: Application.delete_env(@application, key)

      Application.put_all_env([{@application, before}])
      {:ok, _} = Application.ensure_all_started(@application)
    end)
  end

  # As `mix run` and a release start it; the message is what they print.
  defp start(environment) do
    Application.stop(@application)
    Application.put_all_env([{@application, environment}])

    with {:error, {@application, reason}} <- Application.ensure_all_started(@application),
         do: {:error, Application.format_error(reason)}
  end

  test "starts nothing when endpoints do not listen" do
    assert {:ok, _} = start(port: 0)
    assert ExServiceMeshRouter.port() == nil
    assert ExServiceMeshRouter.services() == []
  end

  test "listens with server: true" do
    assert {:ok, _} = start(port: 0, server: true)
    assert ExServiceMeshRouter.port() in 1..65_535
    assert :ok = ExServiceMeshRouter.put_service("a.local", start_server("a"))
    assert get(ExServiceMeshRouter, "a.local") == {200, "a"}
  end

  test "listens under `mix phx.server`, except with server: false" do
    Application.put_env(:phoenix, :serve_endpoints, true)
    assert {:ok, _} = start(port: 0)
    assert ExServiceMeshRouter.port() in 1..65_535
    assert {:ok, _} = start(port: 0, server: false)
    assert ExServiceMeshRouter.port() == nil
  end

  test "does not start with an invalid configuration, with or without server: true" do
    for server <- [true, false] do
      assert {:error, message} = start(prot: 4000, workers: "two", server: server)
      assert message =~ "invalid configuration of :ex_service_mesh_router"
      assert message =~ "prot: unknown key, did you mean port?"
      assert message =~ ~s|workers: got "two", expected an integer|
      Application.delete_env(@application, :prot)
      Application.delete_env(@application, :workers)
    end
  end

  test "restores the settings of endpoints when it stops" do
    port = free_port()
    http = [ip: {127, 0, 0, 1}, port: port]
    endpoints = [GivenBackWeb.Endpoint, GivenBackWeb.Other.Endpoint]

    for endpoint <- endpoints,
        do: EndpointStandIn.define(:given_back_web, endpoint, http: http, server: true)

    listeners = fn -> for it <- endpoints, do: Application.get_env(:given_back_web, it)[:http] end
    assert {:ok, _} = start(port: port, server: true, discover: [only: endpoints])
    assert listeners.() == [false, false]
    Application.stop(@application)
    # By a process that outlives the application.
    eventually([http, http], listeners)
  end

  test "does not start on a port in use, and the error says what to do" do
    port = ExServiceMeshRouter.port(start_gateway())
    assert {:error, message} = start(port: port, ip: {127, 0, 0, 1}, server: true)
    assert message =~ "port #{port} is in use"
    refute message =~ "failed_to_start_child"
  end
end
