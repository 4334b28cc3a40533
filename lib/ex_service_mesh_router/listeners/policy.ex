defmodule ExServiceMeshRouter.Listeners.Policy do
  @moduledoc false
  # Decides which endpoints get a private listener:
  #
  #   :auto   endpoints that serve by Phoenix's rule and have no `http:`, or one in conflict
  #   :all    all endpoints, whatever their settings are
  #   a list  the endpoints in it, as with :all
  #   :never  none

  @doc "Returns whether the endpoint gets one whatever its settings are."
  def always?(:all, _endpoint), do: true
  def always?(list, endpoint) when is_list(list), do: endpoint in list
  def always?(_mode, _endpoint), do: false

  @doc "Returns whether an endpoint with this `http:` gets one, regardless of conflicts."
  def private?(mode, endpoint, serves?, http) do
    always?(mode, endpoint) or (mode == :auto and serves? and http in [nil, false])
  end

  @doc "Returns whether an endpoint gets one if its configured port is in conflict."
  def instead?(mode, endpoint), do: mode == :auto or always?(mode, endpoint)
end
