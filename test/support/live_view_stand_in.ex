# The two functions of LiveView that ExServiceMeshRouter.TenantHook calls, for a test suite that
# needs no package. Where the real ones are loaded, they are used.

unless Code.ensure_loaded?(Phoenix.Component) do
  defmodule Phoenix.Component do
    @moduledoc false
    def assign(socket, key, value), do: put_in(socket.assigns[key], value)
  end
end

unless Code.ensure_loaded?(Phoenix.LiveView) do
  defmodule Phoenix.LiveView do
    @moduledoc false
    def get_connect_info(socket, key), do: socket.private.connect_info[key]
  end
end
