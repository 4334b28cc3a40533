defmodule ExServiceMeshRouter.Handover.State do
  @moduledoc false
  # What is known of the handovers of a gateway, in its Store, so that it survives a crash of a process.
  #
  #     :taken          what the new gateway got from the previous one, until the data plane has opened
  #     :phase          of the new gateway: :none, :taking or :serving
  #     :peer           the process id of the previous gateway
  #     :ready          whether the new gateway waits only for `take/1` (`take: :manual`)
  #     :previous       the open connections of the previous gateway, which drains
  #     :handing_over   of the previous gateway: the process id of the new one, which is starting
  #     :handed_over    as before, and the new one has taken over
  #     :left           whether the previous gateway has drained
  #     :since          when this gateway began to serve

  alias ExServiceMeshRouter.Gateway.Store

  def get(name, key, default \\ nil), do: Store.get(name, {:handover, key}, default)
  def put(name, key, value), do: Store.put(name, {:handover, key}, value)
  def delete(name, key), do: Store.delete(name, {:handover, key})

  @doc "Returns whether the gateway has sockets of another one, which still accepts."
  def taking?(name), do: get(name, :phase) == :taking

  @doc "Returns whether another gateway has taken the port over."
  def handed_over?(name), do: get(name, :handed_over) != nil

  @doc "Describes a handover of this gateway, or `nil`. Also for a gateway without the option."
  def text(name) do
    cond do
      taking?(name) and get(name, :ready) -> "ready to take over from process #{get(name, :peer)}"
      taking?(name) -> "taking over from process #{get(name, :peer)}"
      pid = get(name, :handing_over) -> "handing over to process #{pid}"
      pid = get(name, :handed_over) -> "handed over to process #{pid}"
      count = get(name, :previous) -> "process #{get(name, :peer)} drains #{count} connections"
      true -> nil
    end
  end
end
