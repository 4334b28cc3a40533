defmodule ExServiceMeshRouter.Forwarded do
  @moduledoc false
  # Reads the fields that the gateway writes: exactly one line each. Anything else is `nil`.

  alias ExServiceMeshRouter.{Config.Network, Lock}

  @trusted {__MODULE__, :trusted_proxies}

  @doc "Remembers whose additions to `X-Forwarded-For` are no clients', for all gateways together."
  def add_trusted_proxies(cidrs) do
    networks = Enum.map(cidrs, &Network.parse!/1)

    # One at a time: of two gateways that start at once, one would forget what the other has added.
    Lock.run(__MODULE__, fn ->
      known = :persistent_term.get(@trusted, [])
      :persistent_term.put(@trusted, Enum.uniq(known ++ networks))
    end)
  end

  @doc "The last address that is not a trusted proxy's, or the first one if all are."
  def client(headers) do
    with value when is_binary(value) <- one(headers, "x-forwarded-for"),
         {:ok, [first | _] = ips} <- addresses(value) do
      trusted = :persistent_term.get(@trusted, [])
      ips |> Enum.reverse() |> Enum.find(first, &(not Network.member?(trusted, &1)))
    else
      _ -> nil
    end
  end

  def scheme(headers) do
    case one(headers, "x-forwarded-proto") do
      "http" -> :http
      "https" -> :https
      _ -> nil
    end
  end

  @doc "Without its port, which has a field of its own."
  def host(headers) do
    case one(headers, "x-forwarded-host") do
      "[" <> _ = literal -> literal |> String.split("]") |> hd() |> Kernel.<>("]")
      host when is_binary(host) and host != "" -> host |> String.split(":") |> hd()
      _ -> nil
    end
  end

  def port(headers) do
    with value when is_binary(value) <- one(headers, "x-forwarded-port"),
         {port, ""} when port in 1..65_535 <- Integer.parse(value) do
      port
    else
      _ -> nil
    end
  end

  defp one(headers, name) do
    case for {^name, value} <- headers, do: value do
      [value] -> value
      _ -> nil
    end
  end

  defp addresses(value) do
    value
    |> String.split(",")
    |> Enum.reduce_while({:ok, []}, fn part, {:ok, ips} ->
      case part |> String.trim() |> to_charlist() |> :inet.parse_strict_address() do
        {:ok, ip} -> {:cont, {:ok, [ip | ips]}}
        {:error, _} -> {:halt, :error}
      end
    end)
    |> case do
      {:ok, ips} -> {:ok, Enum.reverse(ips)}
      :error -> :error
    end
  end
end
