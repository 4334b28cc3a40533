defmodule ExServiceMeshRouter.Explanation do
  @moduledoc """
  Describes what the gateway does with a host, see `ExServiceMeshRouter.explain/1`.

    * `:asked` - the argument of `explain/1`
    * `:host` - the normalised host (lower case, no port, no trailing dot); `nil` if the argument is not
      a host, for which the gateway answers 400
    * `:rule` - `:exact`, `:suffix`, `:default`, or `:none`
    * `:matched` - the host that the rule matched, or `nil`
    * `:service` - the service that gets the request, as in `ExServiceMeshRouter.services/0`, or `nil`.
      With `mesh`, its `:peers` are the other nodes that have it, with their states
    * `:status` - the status that the gateway itself answers: 400, 404 or 503; `nil` if it forwards
    * `:others` - `{name, why}` of up to twenty other services, the closest first
    * `:nearest` - the most similar known host if no host matched, or `nil`

  `inspect/2` formats it in a few lines.
  """

  alias ExServiceMeshRouter.Config.Host
  alias ExServiceMeshRouter.Registry.{PeerState, Service, Table}

  @enforce_keys [:asked, :host, :rule]
  defstruct [:asked, :host, :rule, :matched, :service, :status, :nearest, others: []]

  @type t :: %__MODULE__{
          asked: String.t(),
          host: String.t() | nil,
          rule: :exact | :suffix | :default | :none,
          matched: String.t() | nil,
          service: ExServiceMeshRouter.service() | nil,
          status: 400 | 404 | 503 | nil,
          others: [{String.t(), String.t()}],
          nearest: String.t() | nil
        }

  @most_others 20
  # Lines about other nodes, and nodes in the first line.
  @most_peers 20
  @most_upstreams 8

  @doc false
  # `resolved` comes from the data plane, so that the explanation matches its behaviour.
  def new(asked, resolved, {services, table, default}, links \\ %{}) do
    case Host.parse(asked) do
      :error -> %__MODULE__{asked: asked, host: nil, rule: :none, status: 400}
      {:ok, host, _port} -> explain(asked, host, resolved, services, table, default, links)
    end
  end

  defp explain(asked, host, resolved, services, table, default, links) do
    {rule, matched, _name} = resolved || {:none, nil, nil}
    key = Table.key(table, matched)
    service = Enum.find(services, &(&1.key == key))

    %__MODULE__{
      asked: asked,
      host: host,
      rule: rule,
      matched: matched,
      service: service && table |> Table.with_hosts(service) |> Service.public(links),
      status: status(service),
      others: others(services, service, host, matched, table, default),
      nearest: unless(service, do: nearest(host, table))
    }
  end

  defp status(nil), do: 404
  defp status(service), do: if(Service.state(service) == :not_listening, do: 503)

  defp others(services, chosen, host, matched, table, default) do
    suffixes = Host.suffixes(host)

    services
    |> Enum.reject(&(chosen && &1.key == chosen.key))
    |> Enum.map(&{&1, why_not(&1, host, suffixes, matched, table, services)})
    |> Enum.sort_by(fn {service, {rank, _why}} -> {rank, service.name} end)
    |> Enum.take(@most_others)
    |> Enum.map(fn {service, {_rank, why}} -> {Service.label(service), why} end)
    |> Kernel.++(default(default, matched, table))
  end

  # `{rank, why}`; a lower rank is a closer match.
  defp why_not(service, host, suffixes, matched, table, services) do
    claims = service.hosts ++ service.derived
    above = Enum.find(suffixes, &(&1 in claims))

    cond do
      claims == [] -> {3, "it has no host"}
      above == nil -> unrelated(claims, host)
      names = table.shared[above] -> {0, shared(above, names)}
      lost?(table, above, service) -> {0, lost(service, above, Table.key(table, above), services)}
      true -> {1, "#{above} is above #{host}, but #{matched} is longer"}
    end
  end

  defp unrelated(claims, host) do
    case Enum.find(claims, &String.ends_with?(host, &1)) do
      nil ->
        {2,
         "#{Enum.join(claims, ", ")} #{if(tl(claims) == [], do: "is another name", else: "are other names")}"}

      part ->
        {1, "#{host} ends in #{part}, but is not below it: there is no dot before it"}
    end
  end

  defp shared(host, names),
    do: "#{host} is the host of #{Enum.join(names, " and ")}, so it goes to none of them"

  defp lost?(table, host, service),
    do: is_map_key(table.hosts, host) and host not in Map.get(table.routed, service.key, [])

  defp lost(service, host, key, services) do
    winner = Enum.find(services, &(&1.key == key))
    why = if host in service.derived, do: derived(winner, host), else: precedence(winner, service)
    "#{Service.label(winner)} takes precedence for #{host}: #{why}"
  end

  defp derived(winner, host) do
    if host in winner.hosts,
      do: "its configuration has the host",
      else: "its name is the smaller one"
  end

  # The steps of Service.precedence/1.
  defp precedence(%{source: source}, _loser) when source in [:config, :runtime],
    do: "a configured service comes before endpoints"

  defp precedence(winner, loser) do
    case {Service.precedence(winner), Service.precedence(loser)} do
      {{1, _, _}, {1, _, _}} -> "its name is the smaller one"
      {{1, _, _}, _loser} -> "it listens on this node"
      {{2, node, _}, {2, _, _}} -> "#{node} has the smaller name of a node"
      {{2, _, _}, _loser} -> "it listens"
      _ -> "its name is the smaller one"
    end
  end

  defp default(nil, _matched, _table), do: []
  defp default(host, host, _table), do: []
  defp default(host, nil, _table), do: [{"default", "no service has #{host}"}]
  defp default(host, _matched, _table), do: [{"default", "#{host} is only for unknown hosts"}]

  defp nearest(host, table),
    do: Host.nearest(host, Enum.flat_map(table.rows, & &1.hosts))

  defimpl Inspect do
    import Inspect.Algebra

    def inspect(explanation, _options) do
      lines = ExServiceMeshRouter.Explanation.lines(explanation)
      body = lines |> Enum.map(&string/1) |> Enum.intersperse(line()) |> concat()

      concat([
        string("#ExServiceMeshRouter.Explanation<"),
        nest(concat(line(), body), 2),
        line(),
        string(">")
      ])
      |> force_unfit()
    end
  end

  @doc "Formats the explanation as lines of text."
  @spec lines(t()) :: [String.t()]
  def lines(explanation) do
    [outcome(explanation), "rule: " <> rule(explanation)] ++
      in_vm(explanation.service) ++
      peers(explanation.service) ++
      for({name, why} <- explanation.others, do: "not #{name}: #{why}") ++
      if(explanation.nearest, do: ["did you mean #{explanation.nearest}?"], else: [])
  end

  defp outcome(%{host: nil, asked: asked}), do: "#{inspect(asked)} -> 400, not a host"
  defp outcome(%{service: nil, host: host}), do: "#{host} -> 404, unknown service"

  defp outcome(%{status: 503} = it),
    do: "#{it.host} -> #{it.service.name}, which does not listen: 503"

  defp outcome(it), do: "#{it.host} -> #{it.service.name} at #{upstreams(it.service.upstreams)}"

  defp upstreams(upstreams) do
    {shown, more} = Enum.split(upstreams, @most_upstreams)
    more = if more == [], do: "", else: " and #{length(more)} more"
    Enum.join(shown, ", ") <> more
  end

  defp in_vm(%{in_vm: true}), do: ["in VM: only requests for WebSockets use its socket"]
  defp in_vm(%{in_vm: why}) when is_binary(why), do: ["not in VM: #{why}"]
  defp in_vm(_service), do: []

  defp peers(nil), do: []

  defp peers(service) do
    {shown, more} = service.peers |> Enum.reject(&PeerState.used?/1) |> Enum.split(@most_peers)

    for(
      peer <- shown,
      do: "#{peer.node} is #{PeerState.words(peer.state)}: #{PeerState.why(peer)}"
    ) ++ if(more == [], do: [], else: ["#{length(more)} more nodes are avoided"])
  end

  defp rule(%{rule: :exact} = it), do: "exact, #{it.matched} is a host of #{it.service.name}"

  defp rule(%{rule: :suffix} = it),
    do: "suffix, #{it.matched} is the longest host above #{it.host}"

  defp rule(%{rule: :default} = it),
    do: "default, no service has #{it.host}, and #{it.matched} is for unknown hosts"

  defp rule(%{rule: :none}), do: "none"
end
