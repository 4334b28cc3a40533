defmodule ExServiceMeshRouter.Listeners.Policy do
  @moduledoc false
  # Who gets a private listener.
  #
  #   :auto   who serves by Phoenix's rule and has no `http:`, or one that cannot be had
  #   :all    every endpoint, whatever its settings say
  #   a list  the endpoints in it, as with :all, and nobody else
  #   :never  nobody

  @doc "Whether whatever `http:` says is to be replaced."
  def always?(:all, _endpoint), do: true
  def always?(list, endpoint) when is_list(list), do: endpoint in list
  def always?(_mode, _endpoint), do: false

  @doc "Whether an endpoint that serves, or not, with this `http:` gets one."
  def private?(mode, endpoint, serves?, http) do
    always?(mode, endpoint) or (mode == :auto and serves? and http in [nil, false])
  end

  @doc "Whether an endpoint that cannot have the port it wants gets one instead."
  def instead?(mode, endpoint), do: mode == :auto or always?(mode, endpoint)
end
