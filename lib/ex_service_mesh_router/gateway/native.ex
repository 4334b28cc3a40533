defmodule ExServiceMeshRouter.Native do
  @moduledoc false
  # The functions of native/mesh_nif. Must contain nothing else.
  #
  # load/0 loads the library when a gateway starts, not with the module: an application that does not
  # listen (tests, migrations) needs no library. When this module is reloaded afterwards, it loads the
  # library again. The VM refuses that while the old code exists, so the old code stays: the running
  # workers are calls into it.

  @on_load :reload

  @loaded {__MODULE__, :loaded}

  @doc false
  def load do
    case load_library() do
      :ok ->
        :persistent_term.put(@loaded, true)
        :ok

      {:error, {:reload, _already_loaded}} ->
        :ok

      {:error, {_reason, text}} ->
        {:error, List.to_string(text)}
    end
  end

  @doc false
  def loaded?, do: :persistent_term.get(@loaded, false)

  @doc false
  def reload do
    if loaded?() do
      with {:error, {:upgrade, _}} <- load_library(), do: {:error, :in_use_by_the_running_gateway}
    else
      :ok
    end
  end

  defp load_library, do: :erlang.load_nif(library(), 0)

  defp library do
    :ex_service_mesh_router |> :code.priv_dir() |> Path.join("native/mesh_nif") |> to_charlist()
  end

  @doc false
  def open(_config, _owner), do: not_loaded()
  @doc false
  def run(_gateway, _index), do: not_loaded()
  @doc false
  def stop(_gateway, _drain), do: not_loaded()
  @doc false
  def lame_duck(_gateway), do: not_loaded()
  @doc false
  def accept(_gateway, _accepts), do: not_loaded()
  @doc false
  def listeners(_gateway), do: not_loaded()
  @doc false
  def close_listeners(_descriptors), do: not_loaded()
  @doc false
  def listener_address(_descriptor), do: not_loaded()
  @doc false
  def release(_gateway), do: not_loaded()
  @doc false
  def connections(_gateway), do: not_loaded()
  @doc false
  def reserve(_gateway, _total, _clients), do: not_loaded()
  @doc false
  def put_routes(_gateway, _services, _default), do: not_loaded()
  @doc false
  def open_mesh(_gateway, _config), do: not_loaded()
  @doc false
  def put_peers(_gateway, _peers), do: not_loaded()
  @doc false
  def peers(_gateway), do: not_loaded()
  @doc false
  def resolve(_gateway, _host), do: not_loaded()
  @doc false
  def addrs(_gateway), do: not_loaded()
  @doc false
  def own_connection(_ip, _port), do: not_loaded()
  @doc false
  def stats(_gateway), do: not_loaded()
  @doc false
  def observe(_gateway, _wanted, _pid), do: not_loaded()
  @doc false
  def taken(_gateway, _count), do: not_loaded()
  @doc false
  def reopen_log(_gateway), do: not_loaded()

  # A request that a process of this VM answers: `{:mesh_calls, [call]}` is sent to a dispatcher.

  @doc false
  def call_take(_call), do: not_loaded()
  @doc false
  def call_read(_call, _max), do: not_loaded()
  @doc false
  def call_head(_call, _status, _headers, _framing), do: not_loaded()
  @doc false
  def call_data(_call, _binary, _offset), do: not_loaded()
  @doc false
  def call_flush(_call), do: not_loaded()
  @doc false
  def call_finish(_call), do: not_loaded()
  @doc false
  def call_fail(_call), do: not_loaded()
  @doc false
  def call_watch(_call), do: not_loaded()
  @doc false
  def call_alive(_call), do: not_loaded()

  defp not_loaded, do: :erlang.nif_error(:nif_not_loaded)
end
