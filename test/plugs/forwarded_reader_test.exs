defmodule ExServiceMeshRouter.Plugs.ForwardedReaderTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Gateway.TrustedProxies
  alias ExServiceMeshRouter.Plugs.ForwardedReader

  # TEST-NET-2; trusted are all of these proxies in the whole VM from here on.
  @proxy "198.51.100.201"

  setup_all do
    TrustedProxies.add([@proxy, "198.51.100.202/32", "127.0.0.77"])
  end

  defp client(list), do: ForwardedReader.client([{"x-forwarded-for", list}])

  @client {203, 0, 113, 7}

  test "the client is the last address that is not a trusted proxy" do
    assert client("203.0.113.7") == @client
    assert client("6.6.6.6, 203.0.113.7, #{@proxy}") == @client
    assert client("6.6.6.6,203.0.113.7,198.51.100.202,#{@proxy}") == @client
    assert client("2001:db8::7, #{@proxy}") == {0x2001, 0xDB8, 0, 0, 0, 0, 0, 7}
  end

  test "entries written by the client do not hide its address" do
    for garbage <- [
          "garbage",
          "unknown",
          "_hidden",
          "::1]",
          "1.2.3.4.5",
          "",
          "\"x\"",
          "a b",
          "é",
          <<0xC3>>
        ],
        do: assert(client("#{garbage}, 203.0.113.7, #{@proxy}") == @client, garbage)
  end

  test "a port after an address is ignored" do
    for {entry, ip} <- [
          {"203.0.113.7:4711", @client},
          {"[2001:db8::7]:4711", {0x2001, 0xDB8, 0, 0, 0, 0, 0, 7}},
          {"[2001:db8::7]", {0x2001, 0xDB8, 0, 0, 0, 0, 0, 7}}
        ] do
      assert client(entry) == ip
      assert client("garbage, #{entry}, #{@proxy}:80") == ip
    end
  end

  test "an IPv4-mapped IPv6 address equals the IPv4 address" do
    assert client("::ffff:203.0.113.7") == @client
    assert client("203.0.113.7, ::ffff:#{@proxy}") == @client
    assert client("[::ffff:203.0.113.7]:80, #{@proxy}") == @client
  end

  test "the client is the first address if all are trusted proxies" do
    assert client("#{@proxy}, 198.51.100.202") == {198, 51, 100, 201}
    assert client("127.0.0.77") == {127, 0, 0, 77}
  end

  test "an unreadable entry ends the list, and the client is never loopback" do
    # What the proxy says of its client is nothing: the proxy it is.
    assert client("203.0.113.7, unknown, #{@proxy}") == {198, 51, 100, 201}
    # Such a proxy on this machine must not make its clients local ones.
    assert client("unknown, 127.0.0.77") == {0, 0, 0, 0}
    assert client("unknown") == {0, 0, 0, 0}
    assert client("127.0.0.1, garbage") == {0, 0, 0, 0}
    # Octal, hexadecimal, short and scoped forms are nothing that a proxy writes.
    for odd <- [
          "0177.0.0.1",
          "0x7f.1",
          "127.1",
          "::1%lo",
          "2130706433",
          "127.0.0.1:",
          "127.0.0.1:x"
        ],
        do: assert(client(odd) == {0, 0, 0, 0}, odd)

    assert client("") == {0, 0, 0, 0}
    assert client(" , ") == {0, 0, 0, 0}
  end

  test "blanks around an address are no part of it" do
    for list <- ["203.0.113.7 ", "  203.0.113.7", "\t203.0.113.7\t", "203.0.113.7 ,\t#{@proxy} "],
        do: assert(client(list) == @client, inspect(list))
  end

  test "a port is a number from 1 to 65535" do
    port = fn text -> ForwardedReader.port([{"x-forwarded-port", text}]) end
    assert {port.("1"), port.("443"), port.("65535")} == {1, 443, 65_535}

    for bad <- ["", "0", "65536", "99999999999999999999", "+80", "-1", "80 ", "80,80", "x"],
        do: assert(port.(bad) == nil, inspect(bad))
  end

  test "a host has no port" do
    host = fn text -> ForwardedReader.host([{"x-forwarded-host", text}]) end
    assert {host.("a.local"), host.("a.local:4000")} == {"a.local", "a.local"}
    assert {host.("[::1]"), host.("[::1]:4000"), host.("")} == {"[::1]", "[::1]", nil}
  end

  test "a missing or repeated field gives nil" do
    assert ForwardedReader.client([]) == nil
    field = {"x-forwarded-for", "203.0.113.7"}
    assert ForwardedReader.client([field, field]) == nil
  end
end
