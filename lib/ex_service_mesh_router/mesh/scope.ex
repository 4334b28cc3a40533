defmodule ExServiceMeshRouter.Mesh.Scope do
  @moduledoc false
  # Starts the `:pg` scope of a gateway. The version of the protocol is in the group, so that a version
  # that cannot talk to this one is noticed (see Peers) and gets no messages.

  @version 1

  def child_spec(config) do
    %{id: __MODULE__, start: {:pg, :start_link, [name(config.name)]}}
  end

  @doc "Returns the name of the scope."
  def name(name), do: Module.concat(name, Scope)

  @doc "Returns the version of the protocol."
  def version, do: @version

  @doc "Returns the group of the members."
  def group, do: {:mesh, @version}

  @doc "Returns the members on other nodes."
  def others(name) do
    for pid <- :pg.get_members(name(name), group()), node(pid) != node(), do: pid
  rescue
    # The scope is restarting.
    ArgumentError -> []
  end
end
