defmodule ExServiceMeshRouter.InVm.Shape do
  @moduledoc false
  # Checks that a server is a Bandit of the shape that this room is written for (1.7 to 1.12): its
  # pipeline and its transport protocol are not public. Any other server keeps its socket.

  alias ExServiceMeshRouter.InVm.Transport

  @functions [
    ensure_completed: 1,
    peer_data: 1,
    read_data: 2,
    read_headers: 1,
    send_data: 3,
    send_headers: 4,
    send_on_error: 2,
    sendfile: 4,
    sock_data: 1,
    ssl_data: 1,
    supported_upgrade?: 2,
    version: 1
  ]

  @errors [
    {Bandit.HTTPError, [:message, :plug_status]},
    {Bandit.TransportError, [:message, :error]}
  ]

  # `shutdown_timeout` of Thousand Island.
  @shutdown 15_000

  @doc """
  Takes the start of a server's child specification. Returns `{:ok, server}`, with what requests need:
  `:start_plug`, a function that initialises the plug, `:options` of the pipeline, and `:shutdown`, the
  time that running requests have when the server stops. `{:error, why}` if its socket must be used.
  """
  def server({Bandit, :start_link, [options]}) do
    island = Keyword.get(options, :thousand_island_options, [])

    own =
      Enum.filter(
        [:transport_module, :handler_module, :handler_options],
        &Keyword.has_key?(island, &1)
      )

    cond do
      Keyword.get(options, :scheme, :http) != :http ->
        {:error, "its server speaks TLS"}

      own != [] ->
        {:error, "thousand_island_options has #{Enum.map_join(own, " and ", &inspect/1)}"}

      true ->
        with(
          :ok <- bandit(),
          {:ok, plug} <- plug(options[:plug]),
          do: {:ok, server(options, island, plug)}
        )
    end
  end

  def server(_start), do: {:error, "its server is not Bandit"}

  # As Bandit.start_link/1 makes them.
  defp server(options, island, plug) do
    %{
      start_plug: plug,
      options: %{
        http: Keyword.get(options, :http_options, []),
        http_1: Keyword.get(options, :http_1_options, []),
        http_2: Keyword.get(options, :http_2_options, []),
        websocket: Keyword.get(options, :websocket_options, [])
      },
      shutdown: Keyword.get(island, :shutdown_timeout, @shutdown)
    }
  end

  defp plug({plug, options}) when is_function(plug, 2), do: {:ok, fn -> {plug, options} end}
  defp plug(plug) when is_function(plug, 2), do: {:ok, fn -> {plug, []} end}
  defp plug({plug, options}) when is_atom(plug), do: module(plug, options)
  defp plug(plug) when is_atom(plug) and plug != nil, do: module(plug, [])
  defp plug(_other), do: {:error, "its plug is neither a module nor a function"}

  defp module(plug, options) do
    if Code.ensure_loaded?(plug) and function_exported?(plug, :call, 2),
      do: {:ok, fn -> {plug, plug.init(options)} end},
      else: {:error, "its plug #{inspect(plug)} has no call/2"}
  end

  @doc "Returns `:ok` if the Bandit of this system has the known shape, or `{:error, why}`."
  def bandit do
    cond do
      not exported?(Bandit.Pipeline, :run, 5) or
        not exported?(Bandit.HTTPTransport, :__protocol__, 1) or
        functions() != @functions or not Enum.all?(@errors, &fields?/1) ->
        {:error, "this version of Bandit#{version()} is not known to the gateway"}

      apply(Bandit.HTTPTransport, :impl_for, [transport()]) == nil ->
        {:error,
         "the protocols of this system were consolidated without ex_service_mesh_router; " <>
           "compile again with `mix compile --force`"}

      true ->
        :ok
    end
  end

  defp functions, do: apply(Bandit.HTTPTransport, :__protocol__, [:functions]) |> Enum.sort()

  defp fields?({module, fields}) do
    exported?(module, :__struct__, 0) and
      Enum.all?(fields, &is_map_key(apply(module, :__struct__, []), &1))
  end

  defp exported?(module, function, arity),
    do: Code.ensure_loaded?(module) and function_exported?(module, function, arity)

  defp transport, do: struct(Transport, [])

  defp version do
    case Application.spec(:bandit, :vsn) do
      nil -> ""
      version -> " (#{version})"
    end
  end
end
