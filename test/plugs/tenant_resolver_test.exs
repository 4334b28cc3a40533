defmodule Router.Shared.TenantResolverTest do
  use ExUnit.Case, async: true

  alias Router.Shared.TenantResolver

  doctest TenantResolver

  describe "a name alone" do
    test "of three labels gives the first" do
      assert TenantResolver.resolve("tenant1.auth.local") == {:ok, "tenant1"}
      assert TenantResolver.resolve("a.b.c") == {:ok, "a"}
      assert TenantResolver.resolve("42.auth.local") == {:ok, "42"}
      assert TenantResolver.resolve("acme-eu.auth.localhost") == {:ok, "acme-eu"}
      assert TenantResolver.resolve("xn--mller-kva.auth.local") == {:ok, "xn--mller-kva"}
    end

    test "of fewer or more labels gives an error" do
      for host <- ["", "localhost", "auth.local", "a.b.c.d", "tenant1.auth.example.co.uk"] do
        assert TenantResolver.resolve(host) == :error, "for #{inspect(host)}"
      end
    end

    test "that is nil gives an error" do
      assert TenantResolver.resolve(nil) == :error
    end
  end

  describe "spelling" do
    test "port, case and one trailing dot do not matter" do
      for host <- [
            "tenant1.auth.local:4000",
            "tenant1.auth.local:",
            "tenant1.auth.local.",
            "tenant1.auth.local.:4000",
            "TENANT1.Auth.LOCAL"
          ] do
        assert TenantResolver.resolve(host) == {:ok, "tenant1"}, "for #{inspect(host)}"
        assert TenantResolver.resolve(host, base: "Auth.local.:80") == {:ok, "tenant1"}
      end
    end

    test "a port that is not a number or a second trailing dot gives an error" do
      for host <- [
            "tenant1.auth.local:http",
            "tenant1.auth.local:40:00",
            "tenant1.auth.local:-1",
            "tenant1.auth.local..",
            ".tenant1.auth.local",
            "tenant1..local"
          ] do
        assert TenantResolver.resolve(host) == :error, "for #{inspect(host)}"
        assert TenantResolver.resolve(host, base: "auth.local") == :error, "for #{inspect(host)}"
      end
    end
  end

  describe "addresses" do
    test "of both families give an error in every spelling" do
      for host <- [
            "127.0.0.1",
            "127.0.0.1:4000",
            "10.1.2",
            "tenant.10.1",
            "a.b.0x7F",
            "::1",
            "[::1]",
            "[::1]:4000",
            "[2001:db8::1]",
            "::ffff:10.0.0.1"
          ] do
        assert TenantResolver.resolve(host) == :error, "for #{inspect(host)}"
      end
    end

    test "cannot be a base" do
      assert_raise ArgumentError, fn -> TenantResolver.resolve("1.10.0.1", base: "10.0.1") end
    end
  end

  describe "labels that are not valid in a host name (RFC 1123, section 2.1; RFC 1035, section 2.3.4)" do
    test "give an error" do
      for label <- [
            "-a",
            "a-",
            "-",
            "a_b",
            "a b",
            "a/b",
            "..",
            "ü",
            "a\0",
            "a\n",
            "'",
            "%61",
            "*"
          ] do
        assert TenantResolver.resolve(label <> ".auth.local") == :error, "for #{inspect(label)}"

        assert TenantResolver.resolve(label <> ".auth.local", base: "auth.local") == :error,
               "for #{inspect(label)}"
      end
    end

    test "may have 63 bytes, and the name 253" do
      longest = String.duplicate("a", 63)
      assert TenantResolver.resolve(longest <> ".auth.local") == {:ok, longest}
      assert TenantResolver.resolve("a" <> longest <> ".auth.local") == :error

      # Three labels of 63 bytes with their dots, and 61 more.
      base = Enum.map_join([63, 63, 61], ".", &String.duplicate("b", &1))
      assert TenantResolver.resolve(longest <> "." <> base, base: base) == {:ok, longest}

      too_long = Enum.map_join([63, 63, 62], ".", &String.duplicate("b", &1))
      assert TenantResolver.resolve(longest <> "." <> too_long, base: too_long) == :error
    end

    test "that are not UTF-8 give an error" do
      assert TenantResolver.resolve(<<255, 254>> <> ".auth.local") == :error
    end
  end

  describe "a base" do
    test "can have any number of labels" do
      assert TenantResolver.resolve("t.localhost", base: "localhost") == {:ok, "t"}
      assert TenantResolver.resolve("t.auth.local", base: "auth.local") == {:ok, "t"}
      assert TenantResolver.resolve("t.a.b.c.d.e", base: "a.b.c.d.e") == {:ok, "t"}
    end

    test "is matched by whole labels" do
      assert TenantResolver.resolve("t.notauth.local", base: "auth.local") == :error
      assert TenantResolver.resolve("tauth.local", base: "auth.local") == :error
      assert TenantResolver.resolve("t.auth.local.evil.example", base: "auth.local") == :error
    end

    test "has no tenant itself" do
      assert TenantResolver.resolve("billing.auth.local", base: "billing.auth.local") == :error

      assert TenantResolver.resolve("BILLING.auth.local.:80", base: "billing.auth.local") ==
               :error
    end

    test "takes the single label in front of it as the tenant" do
      assert TenantResolver.resolve("a.b.auth.local", base: "auth.local") == :error
    end

    test "can be one of several, and the longest wins" do
      bases = ["example.com", "auth.example.com", "billing.example.org"]

      assert TenantResolver.resolve("t.example.com", base: bases) == {:ok, "t"}
      assert TenantResolver.resolve("t.auth.example.com", base: bases) == {:ok, "t"}
      assert TenantResolver.resolve("t.billing.example.org", base: bases) == {:ok, "t"}
      assert TenantResolver.resolve("auth.example.com", base: bases) == :error
      assert TenantResolver.resolve("t.example.org", base: bases) == :error
      assert TenantResolver.resolve("t.example.com", base: Enum.reverse(bases)) == {:ok, "t"}
      assert TenantResolver.resolve("auth.example.com", base: Enum.reverse(bases)) == :error
    end

    test "that can never match raises an error that names it" do
      for base <- [nil, "", "auth_local", "http://auth.local", :auth, 1, ["auth.local", ""]] do
        assert_raise ArgumentError, ~r/:base must be a host name/, fn ->
          TenantResolver.resolve("t.auth.local", base: base)
        end
      end
    end

    test "is the only option" do
      assert_raise ArgumentError, ~r/only the option :base/, fn ->
        TenantResolver.resolve("t.auth.local", bases: "auth.local")
      end
    end
  end
end
