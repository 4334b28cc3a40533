defmodule ExServiceMeshRouter.Explanation do
  @moduledoc """
  Describes what the gateway does with a host, see `ExServiceMeshRouter.explain/1`.

    * `:asked` - the argument of `explain/1`
    * `:host` - the normalised host (lower case, no port, no trailing dot); `nil` if the argument is not
      a host, for which the gateway answers 400
    * `:rule` - `:exact`, `:suffix`, `:default`, or `:none`
    * `:matched` - the host that the rule matched, or `nil`
    * `:service` - the service that gets the request, as in `ExServiceMeshRouter.services/0`, or `nil`
    * `:status` - the status that the gateway itself answers: 400, 404 or 503; `nil` if it forwards
    * `:others` - `{name, why}` of up to twenty other services, the closest first
    * `:nearest` - the most similar known host if no host matched, or `nil`

  `inspect/2` formats it in a few lines.
  """

  alias ExServiceMeshRouter.Config.Host
  alias ExServiceMeshRouter.Registry.{Service, Table}

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

  @doc false
  # `resolved` comes from the data plane, so that the explanation matches its behaviour.
  def new(asked, resolved, {services, table, default}) do
    case Host.parse(asked) do
      :error -> %__MODULE__{asked: asked, host: nil, rule: :none, status: 400}
      {:ok, host, _port} -> explain(asked, host, resolved, services, table, default)
    end
  end

  defp explain(asked, host, resolved, services, table, default) do
    {rule, matched, _name} = resolved || {:none, nil, nil}
    key = Table.key(table, matched)
    service = Enum.find(services, &(&1.key == key))

    %__MODULE__{
      asked: asked,
      host: host,
      rule: rule,
      matched: matched,
      service: service && table |> Table.with_hosts(service) |> Service.public(),
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
    |> Enum.map(&{&1, why_not(&1, host, suffixes, matched, table)})
    |> Enum.sort_by(fn {service, {rank, _why}} -> {rank, service.name} end)
    |> Enum.take(@most_others)
    |> Enum.map(fn {service, {_rank, why}} -> {Service.label(service), why} end)
    |> Kernel.++(default(default, matched, table))
  end

  # `{rank, why}`; a lower rank is a closer match.
  defp why_not(service, host, suffixes, matched, table) do
    claims = service.hosts ++ service.derived
    above = Enum.find(suffixes, &(&1 in claims))

    cond do
      claims == [] -> {3, "it has no host"}
      above == nil -> unrelated(claims, host)
      names = table.shared[above] -> {0, shared(above, names)}
      lost?(table, above, service) -> {0, lost(above, table.hosts[above])}
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

  defp lost(host, {winner, _upstreams}), do: "#{winner} takes precedence for #{host}"

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
      for({name, why} <- explanation.others, do: "not #{name}: #{why}") ++
      if(explanation.nearest, do: ["did you mean #{explanation.nearest}?"], else: [])
  end

  defp outcome(%{host: nil, asked: asked}), do: "#{inspect(asked)} -> 400, not a host"
  defp outcome(%{service: nil, host: host}), do: "#{host} -> 404, unknown service"

  defp outcome(%{status: 503} = it),
    do: "#{it.host} -> #{it.service.name}, which does not listen: 503"

  defp outcome(it),
    do: "#{it.host} -> #{it.service.name} at #{Enum.join(it.service.upstreams, ", ")}"

  defp rule(%{rule: :exact} = it), do: "exact, #{it.matched} is a host of #{it.service.name}"

  defp rule(%{rule: :suffix} = it),
    do: "suffix, #{it.matched} is the longest host above #{it.host}"

  defp rule(%{rule: :default} = it),
    do: "default, no service has #{it.host}, and #{it.matched} is for unknown hosts"

  defp rule(%{rule: :none}), do: "none"
end
