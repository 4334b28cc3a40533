defmodule ExServiceMeshRouter.JsonTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Json
  alias ExServiceMeshRouter.Json.Fallback

  # Elixir's own JSON, Jason, or the fallback: what there is here.
  @libraries [Fallback | for(library <- [JSON, Jason], Code.ensure_loaded?(library), do: library)]

  test "encodes terms so that they decode to their meaning" do
    for library <- @libraries,
        {term, meaning} <- [
          {[nil, true, false, -12, 1.5, "a", [], %{}],
           [nil, true, false, -12, 1.5, "a", [], %{}]},
          {[:up, AuthWeb.Endpoint], ["up", "AuthWeb.Endpoint"]},
          {[b: 1, a: 2], %{"a" => 2, "b" => 1}},
          {%{:b => 1, AuthWeb => %{1 => "x"}}, %{"AuthWeb" => %{"1" => "x"}, "b" => 1}},
          {"x\"\\\n</é😀\0\d&", "x\"\\\n</é😀\0\d&"},
          {<<255>>, "ÿ"},
          {~U[2026-01-02 03:04:05Z], "2026-01-02T03:04:05Z"},
          {1..3, %{"first" => 1, "last" => 3, "step" => 1}},
          {{:error, 1}, "{:error, 1}"}
        ] do
      text = Json.encode(term, library)
      for reader <- @libraries, do: assert(Json.decode(text, reader) == {:ok, meaning}, text)
    end

    assert {:ok, _term} = Json.decode(Json.encode(%{self: self(), ref: make_ref()}))
  end

  test "encodes HTML and control characters as escapes" do
    for library <- @libraries,
        do:
          assert(
            Json.encode("</script>&\e\d", library) =~
              ~r|\A"\\u003C/script\\u003E\\u0026[^\x00-\x1F\x7F]+"\z|
          )
  end

  test "decodes JSON of other encoders" do
    text = ~S( { "a" : [ 1e3 , 0.5E-1, -0, "\u00e9\ud83d\ude00\/\b\f\r\t" ] } )

    for library <- @libraries,
        do:
          assert(Json.decode(text, library) == {:ok, %{"a" => [1000.0, 0.05, 0, "é😀/\b\f\r\t"]}})
  end

  test "refuses invalid JSON" do
    for library <- @libraries,
        text <-
          ["", "{", "[1,]", "01", "+1", "nul", ~S("\x"), "\"\n\"", ~S("\ud83d"), "1 2"] ++
            [
              "1e400",
              "truefalse",
              "\"",
              String.duplicate("[", 1_000),
              ~S({"a" 1}),
              ~S({a:1}),
              ~S("\u+123"),
              <<?", 255, ?">>
            ] do
      assert Json.decode(text, library) == :error, text
    end
  end
end
