defmodule ExServiceMeshRouter.Config.HostTest do
  use ExServiceMeshRouter.GatewayCase, async: true

  alias ExServiceMeshRouter.Config.Host

  describe "parse/1" do
    test "normalises a Host field" do
      for {field, expected} <- [
            {"Auth.Local", {:ok, "auth.local", nil}},
            {"auth.local.", {:ok, "auth.local", nil}},
            {"auth.local:4000", {:ok, "auth.local", 4000}},
            {"auth.local.:4000", {:ok, "auth.local", 4000}},
            {"auth.local:", {:ok, "auth.local", nil}},
            {"a~b.Attacker.com", {:ok, "a~b.attacker.com", nil}},
            {"a!b*c.test", {:ok, "a!b*c.test", nil}},
            {"a%2Eb.test", {:ok, "a%2eb.test", nil}},
            {"127.0.0.1:80", {:ok, "127.0.0.1", 80}},
            {"[::1]:80", {:ok, "[::1]", 80}},
            {"[0:0:0:0:0:0:0:1]", {:ok, "[::1]", nil}},
            {"[::FFFF:127.0.0.1]", {:ok, "[::ffff:127.0.0.1]", nil}},
            {"[2001:DB8:0:0:1:0:0:1]", {:ok, "[2001:db8::1:0:0:1]", nil}},
            {"[1:0:2:3:4:5:6:7]", {:ok, "[1:0:2:3:4:5:6:7]", nil}},
            {String.duplicate("a", 255), {:ok, String.duplicate("a", 255), nil}}
          ],
          do: assert(Host.parse(field) == expected, inspect(field))
    end

    test "refuses invalid hosts" do
      for field <-
            ["", ".", ":80", "a..b", ".a", "a..", "a b", "a/b", "u@a", "a%zz", "a%4", "a:b"] ++
              ["a:65536", "a:000080", "a:80:80", "a:+80", "é.local", "a\n", "[::1", "[::1]x"] ++
              ["[fe80::1%25eth0]", "[1:2:3:4:5:6:7:8:9]", "[1::2:3:4:5:6:7:8]", "[:::]", "[]"] ++
              ["[::01.2.3.4]", "[::1.2.3]", "[1.2.3.4::]", String.duplicate("a", 256), nil],
          do: assert(Host.parse(field) == :error, inspect(field))
    end

    # What the data plane makes of a host stands in its 404; what it takes for none is a 400.
    test "agrees with the data plane" do
      url = url(start_gateway())
      seed = :rand.seed(:exsss) |> :rand.export_seed_s()

      for field <- fields(600) do
        request = "GET / HTTP/1.1\r\nHost: #{field}\r\nConnection: close\r\n\r\n"

        theirs =
          case url |> RawClient.exchange(request) |> answer() do
            {404, "unknown service: " <> host} -> {:ok, String.trim_trailing(host, "\n")}
            {400, _} -> :error
          end

        ours = with {:ok, host, _port} <- Host.parse(field), do: {:ok, host}
        assert ours == theirs, "#{inspect(field)}, of the seed #{inspect(seed)}"
      end
    end
  end

  @whole ["auth.local", "A.b.C", "x", "127.0.0.1", "1.2.3", "0x7f.0.0.1", "[::1]", "[::]"] ++
           ["[2001:db8::8:800:200c:417a]", "[::ffff:1.2.3.4]", "[::1.2.3.4]", "[1::]", "a%2eb"]
  @bytes Enum.map(~c"aZ09-_.~!$&'()*+,;=%:[]@/\\\"<>?#", &<<&1>>) ++ [" ", "\t", "%41", <<0xC3>>]

  defp fields(count), do: for(_ <- 1..count, do: field()) |> Enum.map(&trim/1)

  defp field do
    case :rand.uniform(6) do
      1 -> Enum.random(@whole) <> Enum.random(["", ".", ":80", ".:443", ":", ":99999", ":x"])
      2 -> mutated(Enum.random(@whole))
      3 -> for(_ <- 1..:rand.uniform(12), into: "", do: Enum.random(@bytes))
      4 -> long(250 + :rand.uniform(8))
      _ -> "[" <> ipv6() <> "]"
    end
  end

  defp mutated(host) do
    {head, tail} = String.split_at(host, :rand.uniform(String.length(host)))
    head <> Enum.random(@bytes) <> String.slice(tail, Enum.random(0..1)..-1//1)
  end

  defp long(bytes), do: "a.b" |> String.duplicate(bytes) |> binary_part(0, bytes)

  defp ipv6 do
    groups = for _ <- 1..(:rand.uniform(6) + 3), do: group()
    {head, tail} = Enum.split(groups, :rand.uniform(length(groups)))
    last = Enum.random(["", "", ":1.2.3.4", ":01.2.3.4"])

    Enum.join(head, ":") <> Enum.random([":", "::"]) <> Enum.join(tail, ":") <> last
  end

  defp group, do: Enum.random(["0", "0", "0", "1", "fF", "0db8", "00000", "g", ""])

  # White space around a field is none of it.
  defp trim(field), do: field |> String.trim(" ") |> String.trim("\t") |> String.trim()

  describe "normalise/1" do
    test "accepts names and addresses, and no ports or other characters" do
      assert Host.normalise("Auth.Local.") == {:ok, "auth.local"}
      assert Host.normalise("my_app.local") == {:ok, "my_app.local"}
      assert Host.normalise("[::0:1]") == {:ok, "[::1]"}

      for wrong <-
            ["a,b", "a~b", "a*", "a%41", "auth.local:80", "a:", "[::1]:80", "a b", "", "a..", :a] ++
              [String.duplicate("a", 254), "a\n"],
          do: assert(Host.normalise(wrong) == :error, inspect(wrong))
    end
  end

  test "suffixes/1 lists the names above a name, and only the address for an address" do
    assert Host.suffixes("a.b.c") == ["a.b.c", "b.c", "c"]
    assert Host.suffixes("127.0.0.1") == ["127.0.0.1"]
    assert Host.suffixes("[::1]") == ["[::1]"]
    # As the data plane: these are names.
    refute Host.address?("010.0.0.1")
    refute Host.address?("0x7f.0.0.1")
    refute Host.address?("1.2.3")
  end
end
