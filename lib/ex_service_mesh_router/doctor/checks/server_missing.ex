defmodule ExServiceMeshRouter.Doctor.Checks.ServerMissing do
  @moduledoc false
  # Under `mix phx.server` everything listens. A release listens where it is told to, and it is easy
  # to tell only one of the two. `server: false` in so many words is respected.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix}

  def findings(%{release?: true, server?: false} = snapshot) do
    if Enum.any?(snapshot.endpoints, & &1.serves?) do
      [
        %{
          problem: "endpoints listen, and the gateway does not",
          why: "A release listens only where it is told to.",
          file: "config/runtime.exs",
          fix: Fix.gateway(server: true)
        }
      ]
    else
      []
    end
  end

  def findings(%{release?: true} = snapshot) do
    for %{serves?: nil} = it <- snapshot.endpoints do
      %{
        problem: "#{Endpoint.name(it)} does not listen",
        why: "A release listens only where it is told to; requests for it get a 503.",
        file: "config/runtime.exs",
        fix: Fix.endpoint(it, server: true)
      }
    end
  end

  def findings(_snapshot), do: []
end
