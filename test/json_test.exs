defmodule ExServiceMeshRouter.JsonTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Json

  defp text(term), do: term |> Json.encode() |> IO.iodata_to_binary()

  test "terms and their text" do
    for {term, text} <- [
          {nil, "null"},
          {true, "true"},
          {:up, ~s("up")},
          {AuthWeb.Endpoint, ~s("AuthWeb.Endpoint")},
          {-12, "-12"},
          {1.5, "1.5"},
          {[], "[]"},
          {[1, "a"], ~s([1,"a"])},
          {[b: 1, a: 2], ~s({"b":1,"a":2})},
          {%{b: 1, a: %{}}, ~s({"a":{},"b":1})},
          {"é\n\"\\\t\d", ~S("é\n\"\\\u0009\u007F")},
          {"</script>&", ~S("\u003C/script\u003E\u0026")},
          {<<255>>, ~s("ÿ")},
          {~U[2026-01-02 03:04:05Z], ~s("2026-01-02T03:04:05Z")}
        ] do
      assert text(term) == text
    end
  end

  test "what was written can be read" do
    term = %{"a" => [1, -2.5, nil, true, false, "x\"\\\n</é😀"], "b" => %{}, "c" => []}
    assert Json.decode(text(term)) == {:ok, term}
  end

  test "reads what others write" do
    assert Json.decode(~S( { "a" : [ 1e3 , 0.5E-1, "\u00e9\ud83d\ude00\/\b\f\r" ] } )) ==
             {:ok, %{"a" => [1000.0, 0.05, "é😀/\b\f\r"]}}
  end

  test "refuses what is none" do
    for text <-
          ["", "{", "[1,]", "01", "+1", "nul", ~S("\x"), "\"\n\"", ~S("\ud83d"), "1 2"] ++
            [~S({"a" 1}), ~S({a:1}), ~S("\u+123"), <<?", 255, ?">>] do
      assert Json.decode(text) == :error, text
    end

    assert Json.decode(String.duplicate("[", 1_000)) == :error
  end
end
