defmodule ExServiceMeshRouter.Endpoint.Settings do
  @moduledoc false
  # Reads and interprets the settings of Phoenix endpoints: whether an endpoint serves, where it
  # listens, where its links lead. The rules are those of Phoenix 1.7 and 1.8 and of its adapters; each
  # function names its source. Must not know what the gateway does with an endpoint.
  #
  # Trap: if `http:` has no port, the server listens on 4000 and links have port 80.

  # Defaults of Bandit.start_link/1 and Phoenix.Endpoint.Cowboy2Adapter.child_specs/2.
  @http_port 4_000
  @https_port 4_040

  @any4 {0, 0, 0, 0}
  @any6 {0, 0, 0, 0, 0, 0, 0, 0}
  @loopback4 {127, 0, 0, 1}
  @loopback6 {0, 0, 0, 0, 0, 0, 0, 1}

  @doc """
  Returns the settings with these keys, without unset ones. A running endpoint is asked, because it may
  have been started with options. Otherwise they come from the application environment.
  """
  def read(endpoint, application, keys) do
    for key <- keys, {:ok, value} <- [ask(endpoint, key)], do: {key, value}
  rescue
    _ -> application |> configured(endpoint) |> Keyword.take(keys)
  catch
    _kind, _reason -> application |> configured(endpoint) |> Keyword.take(keys)
  end

  # `config/1` returns `nil` for an unset key, but for `server:` an explicit `nil` has another meaning.
  defp ask(endpoint, key) do
    if function_exported?(endpoint, :config, 2) do
      with value when value != :unset <- endpoint.config(key, :unset), do: {:ok, value}
    else
      with value when value != nil <- endpoint.config(key), do: {:ok, value}
    end
  end

  @doc """
  Returns the address that the server of a running endpoint is bound to: `{:ok, address}`, `:none`, or
  `:unknown` if it cannot be asked (before Phoenix 1.7.10, or an adapter without `server_info/2`).
  """
  def bound(endpoint) do
    case endpoint.server_info(:http) do
      {:ok, {:ok, address}} -> {:ok, address}
      {:ok, address} -> {:ok, address}
      _error -> :none
    end
  rescue
    UndefinedFunctionError -> :unknown
    _ -> :none
  catch
    # The server or the endpoint exited during the call.
    _kind, _reason -> :none
  end

  @doc "Returns the settings in the environment of an application."
  def configured(application, endpoint) do
    case Application.get_env(application, endpoint) do
      settings when is_list(settings) -> settings
      _ -> []
    end
  end

  @doc "Returns whether an endpoint with these settings serves: `server?/1` of Phoenix.Endpoint.Supervisor."
  def serves?(settings) do
    case Keyword.fetch(settings, :server) do
      {:ok, server} -> server not in [nil, false]
      :error -> Application.get_env(:phoenix, :serve_endpoints, false) not in [nil, false]
    end
  end

  @doc """
  Returns where a server with these options of `http:` listens: `{:tcp, ip, port}`, `{:unix, path}`,
  `nil` without options, or `:unknown` if the options do not tell.

  Bandit and Plug.Cowboy pass `ip:` and `:inet6` to `:gen_tcp.listen/2`, which without an address
  listens on every address.
  """
  def listener(http) when is_list(http) do
    case {ip(option(http, :ip, :any), family(http)), port(option(http, :port, @http_port))} do
      {{:local, path}, _port} when is_binary(path) or is_list(path) ->
        {:unix, IO.chardata_to_string(path)}

      {ip, port} when tuple_size(ip) in [4, 8] and port in 0..65_535 ->
        {:tcp, ip, port}

      _other ->
        :unknown
    end
  end

  def listener(_none), do: nil

  defp ip(:any, :inet), do: @any4
  defp ip(:any, :inet6), do: @any6
  defp ip(:loopback, :inet), do: @loopback4
  defp ip(:loopback, :inet6), do: @loopback6
  defp ip(ip, _family), do: ip

  defp family(options),
    do: if(:inet6 in options or option(options, :net, nil) == :inet6, do: :inet6, else: :inet)

  @doc "Returns the `{ip, port}` of `http:`, or `nil` for none, a Unix socket, or port 0."
  def address(http) do
    case listener(http) do
      {:tcp, ip, port} when port > 0 -> {ip, port}
      _other -> nil
    end
  end

  @doc "Returns whether two listeners cannot have these addresses at the same time."
  def overlap?(nil, _other), do: false
  def overlap?(_one, nil), do: false
  def overlap?({_, port}, {_, other}) when port != other, do: false
  def overlap?({ip, _}, {ip, _}), do: true
  # Erlang's sockets on `::` also accept IPv4.
  def overlap?({one, _}, {other, _}) when @any6 in [one, other], do: true
  def overlap?({one, _}, {other, _}) when tuple_size(one) != tuple_size(other), do: false
  def overlap?({one, _}, {other, _}), do: @any4 in [one, other]

  @doc "Returns the port of an `https:` with these options, or `nil`."
  def https_port(https) when is_list(https), do: https |> option(:port, @https_port) |> port()
  def https_port(_none), do: nil

  @doc """
  Returns where links lead: `build_url/2` of Phoenix.Endpoint.Supervisor. `explicit?` is true if `url:`
  has a port.
  """
  def links(settings) do
    {http, https, url} = {settings[:http], settings[:https], url(settings)}

    {scheme, port} =
      cond do
        is_list(https) -> {"https", https |> option(:port, nil) |> port() || 443}
        is_list(http) -> {"http", http |> option(:port, nil) |> port() || 80}
        true -> {"http", 80}
      end

    explicit = port(url[:port])

    %{
      scheme: url[:scheme] || scheme,
      host: host(url),
      port: explicit || port,
      explicit?: explicit != nil
    }
  end

  @doc "Returns `url:` as a keyword list."
  def url(settings), do: if(is_list(settings[:url]), do: settings[:url], else: [])

  @doc "Returns the host of a `url:`: `host_to_binary/1` of Phoenix.Endpoint.Supervisor, with its default."
  def host(url) do
    case url[:host] do
      host when is_binary(host) -> host
      {:system, variable} -> System.get_env(variable) || "localhost"
      _ -> "localhost"
    end
  end

  @doc "Returns a port as a number, or `nil`: `port_to_integer/1` of Phoenix.Endpoint.Supervisor."
  def port(port) when is_integer(port), do: port
  def port({:system, variable}), do: variable |> System.get_env() |> port()

  def port(text) when is_binary(text) do
    case Integer.parse(text) do
      {port, ""} -> port
      _ -> nil
    end
  end

  def port(_other), do: nil

  # Not Keyword.get/3: the list may contain atoms such as `:inet6`.
  defp option(options, key, default) do
    case List.keyfind(options, key, 0) do
      {^key, value} -> value
      _none -> default
    end
  end
end
