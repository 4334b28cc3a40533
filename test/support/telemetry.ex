# The three functions of telemetry that are used, for a repository without dependencies. Where the real
# one is loaded, it is used.

unless Code.ensure_loaded?(:telemetry) do
  defmodule :telemetry do
    @moduledoc false

    def attach(id, event, function, config) do
      :persistent_term.put({__MODULE__, id}, {event, function, config})
      :ok
    end

    def detach(id) do
      :persistent_term.erase({__MODULE__, id})
      :ok
    end

    def execute(event, measurements, metadata) do
      for {{__MODULE__, _id}, {^event, function, config}} <- :persistent_term.get() do
        function.(event, measurements, metadata, config)
      end

      :ok
    end
  end
end
