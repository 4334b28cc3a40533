defmodule ExServiceMeshRouter.Mesh.Hello do
  @moduledoc false
  # Builds and checks the only message between gateways, `{:exmesh_hello, hello}`. It always has the whole
  # state of a gateway, so that a lost one is repaired by the next.
  #
  #   * `v` - the version of the protocol; `library` - that of the library
  #   * `node`, `member` - the name of the node, and the process that speaks for its gateway
  #   * `gateway` - the name of the gateway
  #   * `incarnation` - identifies the data plane, by a digest of its key; `seq` - grows with each hello
  #   * `key` - the public key of the data plane; `port`, `ips`, `advertise` - where it listens
  #   * `state` - `:serving` or `:draining`
  #   * `services` - the endpoints: `endpoint`, `application`, `hosts`, `since` in Unix milliseconds
  #   * `seen` - the incarnations whose keys this gateway has pinned
  #   * `answer` - whether the receiver is to say hello, too
  #   * `checks` - texts for the doctor, to compare with other nodes, see Checks
  #
  # What arrives was made by another node and may be anything: each field has a check and a bound, and
  # unknown fields are ignored. Atoms of other nodes exist only as those of this list.

  alias ExServiceMeshRouter.Config.{Host, Network}
  alias ExServiceMeshRouter.Mesh.Scope
  alias ExServiceMeshRouter.Registry.IndexRow

  @most_services 1_000
  @most_hosts 100
  @most_ips 16
  @most_seen 1_024
  @most_checks 4_096
  @longest_text 255

  # SubjectPublicKeyInfo of Ed25519 (RFC 8410).
  @key_prefix <<0x30, 0x2A, 0x30, 0x05, 0x06, 0x03, 0x2B, 0x65, 0x70, 0x03, 0x21, 0x00>>

  @doc "Returns the incarnation of the data plane with this key."
  def incarnation(key), do: key |> :erlang.md5() |> Base.encode16(case: :lower)

  @doc "Returns the version of this library."
  def library do
    case Application.spec(:ex_service_mesh_router, :vsn) do
      nil -> "unknown"
      version -> List.to_string(version)
    end
  end

  @doc "Makes a hello of the calling process. `fields` has what depends on the gateway."
  def build(fields) do
    %{
      v: Scope.version(),
      library: library(),
      node: Atom.to_string(node()),
      member: self(),
      incarnation: incarnation(fields.key),
      # Grows for as long as the VM lives, also when the Member restarts.
      seq: :erlang.unique_integer([:monotonic]),
      answer: false,
      checks: %{}
    }
    |> Map.merge(fields)
  end

  @doc "Returns the entry of an endpoint, or `nil` if it has nothing that other nodes may have."
  def service(service) do
    hosts = service.hosts |> Enum.filter(&shared_host?/1) |> Enum.take(@most_hosts)

    if hosts != [] and service_name?(service.name) do
      %{
        endpoint: service.name,
        application: Atom.to_string(service.application),
        hosts: hosts,
        since: DateTime.to_unix(service.since, :millisecond)
      }
    end
  end

  @doc "Returns as many entries as a hello may have."
  def services(entries), do: Enum.take(entries, @most_services)

  @doc "Returns the checks that a hello may have."
  def checks(checks) do
    checks
    |> Enum.filter(fn {key, value} -> text?(key) and text?(value) end)
    |> Enum.take(@most_checks)
    |> Map.new()
  end

  @doc """
  Checks a term that arrived at the gateway `gateway`: `{:ok, hello}`, or `{:error, kind, text}` with the
  kind `:version`, `:other_gateway` or `:malformed`.
  """
  def parse(%{v: v} = term, gateway) when not is_struct(term) do
    cond do
      v != Scope.version() -> {:error, :version, other_version(term, v)}
      term[:gateway] != gateway -> {:error, :other_gateway, other_gateway(term, gateway)}
      true -> check(term)
    end
  end

  def parse(term, _gateway), do: {:error, :malformed, malformed("it is #{show(term)}")}

  @doc "Returns the node of the sender, or `nil`."
  def sender(%{member: pid}) when is_pid(pid), do: node(pid)
  def sender(_term), do: nil

  defp check(term) do
    case Enum.find(fields(), fn {key, _expected, valid?} ->
           not (is_map_key(term, key) and valid?.(Map.fetch!(term, key)))
         end) do
      nil -> consistent(term)
      {key, expected, _} -> {:error, :malformed, malformed("its `#{key}` is not #{expected}")}
    end
  end

  defp fields do
    [
      {:member, "a process of another node", &(is_pid(&1) and node(&1) != node())},
      {:node, "a node name", &text?/1},
      {:library, "a version", &text?/1},
      {:incarnation, "an incarnation", &incarnation?/1},
      {:seq, "a number", &(is_integer(&1) and abs(&1) < 0x1_0000_0000_0000_0000)},
      {:key, "an Ed25519 public key", &key?/1},
      {:port, "a port", &port?/1},
      {:ips, "a list of up to #{@most_ips} addresses",
       &list?(&1, @most_ips, fn ip -> ip?(ip) end)},
      {:advertise, "a host and a port", &(&1 == nil or host_and_port?(&1))},
      {:state, "serving or draining", &(&1 in [:serving, :draining])},
      {:services, "a list of up to #{@most_services} endpoints with their hosts",
       &list?(&1, @most_services, fn service -> service?(service) end)},
      {:seen, "a list of up to #{@most_seen} incarnations",
       &list?(&1, @most_seen, fn id -> incarnation?(id) end)},
      {:answer, "true or false", &is_boolean/1},
      {:checks, "a map of texts", &checks?/1}
    ]
  end

  # What contradicts itself comes from a gateway that lies or from a fault.
  defp consistent(term) do
    cond do
      Atom.to_string(node(term.member)) != term.node ->
        {:error, :malformed, malformed("it says that it is #{show(term.node)}")}

      incarnation(term.key) != term.incarnation ->
        {:error, :malformed, malformed("its `incarnation` does not belong to its `key`")}

      true ->
        {:ok, Map.update!(term, :services, &Enum.uniq_by(&1, fn service -> service.endpoint end))}
    end
  end

  defp service?(%{endpoint: name, application: application, hosts: [_ | _] = hosts, since: since}) do
    service_name?(name) and text?(application) and list?(hosts, @most_hosts, &shared_host?/1) and
      is_integer(since) and match?({:ok, _}, unix(since))
  end

  defp service?(_other), do: false

  # DateTime.from_unix/2 raises beyond its range in some versions.
  defp unix(ms) when abs(ms) < 250_000_000_000_000, do: DateTime.from_unix(ms, :millisecond)
  defp unix(_ms), do: :error

  # A module, in the characters that a header field may have. Names of other services begin otherwise.
  defp service_name?(name), do: text?(name) and name =~ ~r/\A(:"?[a-z]|[A-Z])[A-Za-z0-9_.?!"]*\z/

  # Each node has its own localhost, which is what Phoenix generates for every endpoint, and its own
  # index.
  defp shared_host?(host) do
    text?(host) and Host.normalise(host) == {:ok, host} and host != "localhost" and
      host not in IndexRow.hosts()
  end

  defp key?(<<@key_prefix, _key::binary-size(32)>>), do: true
  defp key?(_other), do: false

  defp incarnation?(id), do: is_binary(id) and byte_size(id) == 32 and id =~ ~r/\A[0-9a-f]+\z/
  defp port?(port), do: port in 1..65_535
  defp ip?(ip), do: text?(ip) and match?({:ok, _}, Network.parse_address(ip))
  defp host_and_port?({host, port}), do: (ip?(host) or host?(host)) and port?(port)
  defp host_and_port?(_other), do: false
  defp host?(host), do: text?(host) and Host.normalise(host) == {:ok, host}

  defp checks?(checks) do
    # Functions of Enum would call the module that a struct names.
    is_map(checks) and not is_struct(checks) and map_size(checks) <= @most_checks and
      Enum.all?(checks, fn {key, value} -> text?(key) and text?(value) end)
  end

  # Texts get into the log.
  defp text?(text) do
    is_binary(text) and byte_size(text) in 1..@longest_text and String.printable?(text) and
      not (text =~ ~r/[[:cntrl:]]/)
  end

  # Not length/1: the list may be long or improper.
  defp list?([], _most, _valid?), do: true

  defp list?([item | rest], most, valid?) when most > 0,
    do: valid?.(item) and list?(rest, most - 1, valid?)

  defp list?(_other, _most, _valid?), do: false

  defp malformed(why) do
    "dropped a hello that cannot be understood: #{why}. " <>
      "Requests do not go to that node; it probably has another version of ex_service_mesh_router"
  end

  defp other_version(term, v) do
    "the gateway speaks version #{show(v)} of the mesh (ex_service_mesh_router " <>
      "#{show(term[:library])}), and this one version #{Scope.version()} (#{library()}). " <>
      "They ignore each other until both have the same"
  end

  defp other_gateway(term, gateway),
    do: "dropped a hello for the gateway #{show(term[:gateway])}; this one is #{gateway}"

  defp show(term), do: inspect(term, limit: 5, printable_limit: 60)
end
