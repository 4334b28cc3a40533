defmodule ExServiceMeshRouter.Listeners.PolicyTest do
  use ExUnit.Case, async: true

  alias ExServiceMeshRouter.Listeners.Policy

  test "each mode gives listeners to the right endpoints" do
    # mode, serves?, http => private?, instead?
    for {mode, serves?, http, private?, instead?} <- [
          {:auto, true, nil, true, true},
          {:auto, true, false, true, true},
          {:auto, true, [port: 4000], false, true},
          {:auto, false, nil, false, true},
          {:all, false, [port: 4000], true, true},
          {[E], false, [port: 4000], true, true},
          {[Other], true, nil, false, false},
          {:never, true, nil, false, false}
        ] do
      assert Policy.private?(mode, E, serves?, http) == private?, inspect({mode, serves?, http})
      assert Policy.instead?(mode, E) == instead?, inspect(mode)
    end
  end
end
