defmodule ExServiceMeshRouter.Config.NetworkTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Config.Network

  defp member?(block, ip), do: Network.member?([Network.parse!(block)], ip)

  test "a block contains the addresses with its prefix" do
    assert member?("10.0.0.0/8", {10, 255, 255, 255})
    refute member?("10.0.0.0/8", {11, 0, 0, 0})
    assert member?("192.0.2.7", {192, 0, 2, 7})
    refute member?("192.0.2.7", {192, 0, 2, 6})
    assert member?("192.0.2.128/25", {192, 0, 2, 200})
    refute member?("192.0.2.128/25", {192, 0, 2, 100})
    assert member?("0.0.0.0/0", {1, 2, 3, 4})
    assert member?("2001:db8::/32", {0x2001, 0xDB8, 1, 2, 3, 4, 5, 6})
    refute member?("2001:db8::/32", {0x2001, 0xDB9, 0, 0, 0, 0, 0, 0})
  end

  test "a block never contains addresses of the other family" do
    refute member?("0.0.0.0/0", {0, 0, 0, 0, 0, 0, 0, 1})
    refute member?("::/0", {127, 0, 0, 1})
  end

  test "IPv4-mapped IPv6 addresses and blocks equal their IPv4 form" do
    mapped = {0, 0, 0, 0, 0, 0xFFFF, 0x7F00, 1}
    assert member?("127.0.0.0/8", mapped)
    refute member?("::1", mapped)
    assert member?("::ffff:127.0.0.1", {127, 0, 0, 1})
    assert member?("::ffff:10.0.0.0/104", {10, 1, 2, 3})
    refute member?("::ffff:10.0.0.0/104", {11, 1, 2, 3})
    assert "::ffff:10.0.0.0/104" |> Network.parse!() |> Network.to_string() == "10.0.0.0/8"
    assert Network.unmap(mapped) == {127, 0, 0, 1}
    assert Network.unmap({0, 0, 0, 0, 0, 0, 0, 1}) == {0, 0, 0, 0, 0, 0, 0, 1}
  end

  test "text that is not a block is an error" do
    for text <-
          ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/x", "10.0.0.0/", "10.0.0/8"] ++
            ["010.0.0.1", "0x7f.0.0.1", "::1/129", "fe80::1%eth0", "localhost", nil, {1, 2}],
        do: assert(Network.parse(text) == :error, inspect(text))
  end
end
