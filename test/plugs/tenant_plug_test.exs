defmodule ExServiceMeshRouter.Plugs.TenantPlugTest do
  # Not async: one test sets a key of the application.
  use ExUnit.Case

  alias ExServiceMeshRouter.{TenantNotFoundError, TenantPlug}

  defmodule Endpoint do
    def host, do: "auth.example.com"
  end

  # As Phoenix generates it.
  defmodule GeneratedEndpoint do
    def host, do: "localhost"
    def config(:otp_app), do: :auth_web
  end

  # The fields of a Plug.Conn that matter here; the package itself is not needed to run this.
  defp conn(host, private \\ %{}) do
    %{host: host, assigns: %{user: "ann"}, private: private, halted: false}
  end

  defp call(host, options, private \\ %{}) do
    TenantPlug.call(conn(host, private), TenantPlug.init(options))
  end

  def base(host), do: host
  def stop(conn), do: %{conn | halted: true}

  describe "the assign" do
    test "is added to the existing assigns" do
      assert call("tenant1.auth.local", []).assigns == %{user: "ann", tenant: "tenant1"}
    end

    test "is nil without a tenant" do
      assert call("auth.local", []).assigns == %{user: "ann", tenant: nil}
    end

    test "has the configured key" do
      assert call("acme.auth.local", key: :account).assigns == %{user: "ann", account: "acme"}
    end

    test "is reset when the host has no tenant" do
      options = TenantPlug.init([])
      conn = TenantPlug.call(conn("tenant1.auth.local"), options)

      assert TenantPlug.call(%{conn | host: "auth.local"}, options).assigns.tenant == nil
    end
  end

  describe "the base" do
    test "can be one host or several" do
      assert call("t.auth.example.com", base: "auth.example.com").assigns.tenant == "t"
      assert call("t.b.example", base: ["a.example", "b.example"]).assigns.tenant == "t"
      assert call("b.a.example", base: ["a.example", "b.a.example"]).assigns.tenant == nil
    end

    test "can be the host of the Phoenix endpoint itself" do
      private = %{phoenix_endpoint: Endpoint}

      assert call("t.auth.example.com", [base: :endpoint], private).assigns.tenant == "t"
      assert call("auth.example.com", [base: :endpoint], private).assigns.tenant == nil
    end

    test ":endpoint includes the development names of the endpoint" do
      Application.put_env(:ex_service_mesh_router, :dev_domain, "localhost")
      on_exit(fn -> Application.delete_env(:ex_service_mesh_router, :dev_domain) end)
      private = %{phoenix_endpoint: GeneratedEndpoint}

      assert call("auth.localhost", [base: :endpoint], private).assigns.tenant == nil
      assert call("t.auth.localhost", [base: :endpoint], private).assigns.tenant == "t"
      assert call("t.localhost", [base: :endpoint], private).assigns.tenant == "t"
    end

    test ":endpoint without an endpoint raises an error that says so" do
      assert_raise ArgumentError, ~r/needs a Phoenix endpoint/, fn ->
        call("t.auth.example.com", base: :endpoint)
      end
    end

    test "can be a function that is called for each request" do
      assert call("t.auth.local", base: {__MODULE__, :base, ["auth.local"]}).assigns.tenant == "t"
    end
  end

  describe "a host without a tenant" do
    test "continues by default" do
      refute call("auth.local", []).halted
    end

    test "can raise a 404 error" do
      error =
        assert_raise TenantNotFoundError, fn -> call("auth.local", on_missing: :not_found) end

      assert error.plug_status == 404
      assert Exception.message(error) == ~s(no tenant in the host "auth.local")
    end

    test "can call a function" do
      for on_missing <- [&__MODULE__.stop/1, {__MODULE__, :stop}] do
        conn = call("auth.local", on_missing: on_missing)
        assert conn.halted
        assert conn.assigns.tenant == nil
      end
    end

    test "on_missing does not affect hosts with a tenant" do
      refute call("t.auth.local", on_missing: {__MODULE__, :stop}).halted
      assert call("t.auth.local", on_missing: :not_found).assigns.tenant == "t"
    end
  end

  describe "options" do
    test "are checked at once, and all errors are reported" do
      error =
        assert_raise ArgumentError, fn ->
          TenantPlug.init(kee: :tenant, key: "tenant", base: "http://auth.local", on_missing: 404)
        end

      assert error.message =~ "ExServiceMeshRouter.TenantPlug"
      assert error.message =~ "unknown option :kee; known are :key, :base, :on_missing"
      assert error.message =~ ~s(:key is "tenant"; it must be an atom)
      assert error.message =~ ~s(:base is "http://auth.local"; it must be a host name)
      assert error.message =~ ":on_missing is 404; it must be :continue, :not_found"
    end

    test "must be a keyword list" do
      assert_raise ArgumentError, ~r/takes a keyword list, got: :tenant/, fn ->
        TenantPlug.init(:tenant)
      end
    end

    test "can be initialised at compile time" do
      options = TenantPlug.init(base: ["auth.local"], on_missing: {__MODULE__, :stop})
      assert {^options, []} = options |> Macro.escape() |> Code.eval_quoted()
    end
  end
end
