defmodule ExServiceMeshRouter.PrivateListeners.Address do
  @moduledoc false
  # The address that an endpoint's `http:` asks for, and whether two cannot be had at once.

  # What the adapters take where nothing is said.
  @port 4_000
  @any4 {0, 0, 0, 0}
  @any6 {0, 0, 0, 0, 0, 0, 0, 0}

  @doc "`{ip, port}`, or `nil` for what takes no port from anybody: none, a Unix socket, port 0."
  def of(http) when is_list(http) do
    options = Enum.filter(http, &match?({_, _}, &1))
    ip = :proplists.get_value(:ip, options, @any6)

    case port(:proplists.get_value(:port, options, @port)) do
      port when port in 1..65_535 and tuple_size(ip) in [4, 8] -> {ip, port}
      _ -> nil
    end
  end

  def of(_no_listener), do: nil

  defp port({:system, variable}), do: variable |> System.get_env() |> port()

  defp port(text) when is_binary(text) do
    case Integer.parse(text) do
      {number, ""} -> number
      _ -> nil
    end
  end

  defp port(port), do: port

  @doc "Whether these two cannot be listened on at the same time."
  def overlap?(nil, _other), do: false
  def overlap?(_one, nil), do: false
  def overlap?({_, port}, {_, other}) when port != other, do: false
  def overlap?({ip, _}, {ip, _}), do: true
  # Erlang's sockets on `::` take IPv4 as well.
  def overlap?({one, _}, {other, _}) when @any6 in [one, other], do: true
  def overlap?({one, _}, {other, _}) when tuple_size(one) != tuple_size(other), do: false
  def overlap?({one, _}, {other, _}), do: @any4 in [one, other]
end
