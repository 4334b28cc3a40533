defmodule ExServiceMeshRouter.ReadmeTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Config.Options

  @readme File.read!(Path.expand("../README.md", __DIR__))

  # The first cells of a table's rows, from its header on.
  defp keys(header) do
    [_before, table] = String.split(@readme, header, parts: 2)
    [rows | _after] = String.split(table, "\n\n", parts: 2)
    for [key] <- Regex.scan(~r/^\| `(\w+)` \|/m, rows, capture: :all_but_first), do: key
  end

  defp names(keys), do: keys |> Enum.map(&to_string/1) |> Enum.sort()

  test "the README's tables have every key of the configuration, and no other" do
    assert Enum.sort(keys("| key | type |")) ==
             names(for {key, _, _, _} <- Options.all(), do: key)

    assert Enum.sort(keys("| key of `timeouts` |")) == names(Keyword.keys(Options.timeouts()))
    assert Enum.sort(keys("| key of `limits` |")) == names(Keyword.keys(Options.limits()))
  end
end
