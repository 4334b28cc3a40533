defmodule ExServiceMeshRouter.Doctor.Checks.ServerMissing do
  @moduledoc false
  # Under `mix phx.server` everything listens. A release listens where it is told to, and it is easy
  # to tell only one of the two. `server: false` in so many words is respected.

  alias ExServiceMeshRouter.Doctor.{Endpoint, Fix}

  def findings(%{release?: true, server?: false} = snapshot) do
    if Enum.any?(snapshot.endpoints, & &1.serves?) do
      [
        Map.merge(Fix.gateway([server: true], snapshot), %{
          problem: "endpoints listen, and the gateway does not",
          why: "A release listens only where it is told to."
        })
      ]
    else
      []
    end
  end

  def findings(%{release?: true} = snapshot) do
    for %{serves?: nil} = it <- snapshot.endpoints do
      Map.merge(Fix.endpoint(it, [server: true], snapshot), %{
        problem: "#{Endpoint.name(it)} does not listen",
        why: "A release listens only where it is told to; requests for it get a 503."
      })
    end
  end

  def findings(_snapshot), do: []
end
