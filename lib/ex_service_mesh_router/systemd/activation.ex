defmodule ExServiceMeshRouter.Systemd.Activation do
  @moduledoc false
  # Finds the sockets that systemd has passed to this VM (sd_listen_fds(3)) and that fit the gateway's
  # addresses. They stay open in the VM, so that a gateway that restarts uses them again, and
  # systemd keeps its own copies, so that clients wait in their queues while the VM restarts.
  #
  # What does not fit is left alone. The environment is not changed: child processes see a LISTEN_PID
  # that is not theirs.

  require Logger

  alias ExServiceMeshRouter.Config.Network
  alias ExServiceMeshRouter.Gateway.Store
  alias ExServiceMeshRouter.{Gateway, Native}

  @first 3
  # A unit has a few. The number of descriptors is not trusted further.
  @most 256

  @waiting {__MODULE__, :waiting}

  @any4 {0, 0, 0, 0}
  @any6 {0, 0, 0, 0, 0, 0, 0, 0}

  @doc "Returns whether systemd has passed sockets to this VM or to a process that started it."
  def wanted?, do: System.get_env("LISTEN_FDS") != nil

  @doc """
  Returns the sockets that fit the configuration, with the keys of Native.open/2, or `nil`. Only the IP
  addresses that none of them has are then left to be bound.

  Nothing is accepted until Startup says so: clients wait in the queues for the endpoints.
  """
  def sockets(config) do
    fitting =
      for {descriptor, name} <- passed(),
          {:ok, covered} <- [fit(descriptor, name, config)],
          do: {descriptor, covered}

    if fitting != [] do
      Store.put(config.name, @waiting, true)
      {sockets, covered} = Enum.unzip(fitting)
      ips = Enum.map(config.ips -- Enum.concat(covered), &ip/1)
      %{sockets: sockets, ips: ips, keep_queue: true, accepting: false}
    end
  end

  @doc "Returns whether the gateway has such sockets and does not accept yet."
  def waiting?(name), do: Store.get(name, @waiting, false)

  @doc "Accepts the connections of the queues, and all later ones."
  def accept(name) do
    Native.accept(Gateway.ref(name), true)
    Store.put(name, @waiting, false)
  end

  # `[{descriptor, name}]` of the environment.
  defp passed do
    with {:ok, count} <- count(System.get_env("LISTEN_FDS")),
         :ok <- pid(System.get_env("LISTEN_PID")) do
      names = String.split(System.get_env("LISTEN_FDNAMES", ""), ":")
      for index <- 0..(count - 1)//1, do: {@first + index, Enum.at(names, index, "")}
    else
      :none -> []
      {:error, why} -> refuse(why)
    end
  end

  defp count(nil), do: :none

  defp count(text) do
    case Integer.parse(text) do
      {count, ""} when count in 0..@most -> {:ok, count}
      _ -> {:error, "LISTEN_FDS is #{inspect(text)}, expected a number from 0 to #{@most}"}
    end
  end

  defp pid(text) do
    own = System.pid()

    case text do
      ^own ->
        :ok

      nil ->
        {:error, "LISTEN_FDS is set and LISTEN_PID is not"}

      other ->
        {:error,
         "LISTEN_PID is #{inspect(other)} and this VM is process #{own}, so they belong to " <>
           "another process; a script that starts the VM must use `exec`"}
    end
  end

  defp refuse(why) do
    Logger.warning(
      "ExServiceMeshRouter uses no sockets of systemd and binds its addresses: #{why}"
    )

    []
  end

  defp fit(descriptor, name, config) do
    with {:ok, address} <- address(descriptor),
         {_address, [_ | _] = covered} <- {address, covered(address, config)} do
      Logger.info("ExServiceMeshRouter uses #{label(descriptor, name)}: #{text(address)}")
      {:ok, covered}
    else
      {address, []} ->
        leave(
          descriptor,
          name,
          "it listens on #{text(address)}, and the gateway on #{all(config)}"
        )

      {:error, why} ->
        leave(descriptor, name, why)
    end
  end

  defp covered(address, config), do: Enum.filter(config.ips, &covers?(address, &1, config.port))

  defp leave(descriptor, name, why) do
    Logger.warning("ExServiceMeshRouter leaves #{label(descriptor, name)} alone: #{why}")
    :error
  end

  defp label(descriptor, ""), do: "descriptor #{descriptor} of systemd"
  defp label(descriptor, name), do: "descriptor #{descriptor} (#{inspect(name)}) of systemd"

  # A dual-stack socket accepts IPv4, too.
  defp covers?({_ip, port, _dual?}, _wanted, other) when port != other, do: false
  defp covers?({@any6, _port, true}, @any4, _), do: true
  defp covers?({ip, _port, _dual?}, wanted, _), do: ip == wanted

  defp address(descriptor) do
    with {:ok, {ip, port, dual?}} <- Native.listener_address(descriptor),
         {:ok, ip} <- Network.parse_address(ip),
         do: {:ok, {ip, port, dual?}}
  end

  defp all(config), do: Enum.map_join(config.ips, " and ", &text({&1, config.port, false}))
  defp text({ip, port, _dual?}), do: Gateway.text({ip(ip), port})
  defp ip(ip), do: ip |> :inet.ntoa() |> List.to_string()
end
