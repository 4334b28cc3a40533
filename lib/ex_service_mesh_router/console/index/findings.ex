defmodule ExServiceMeshRouter.Console.Index.Findings do
  @moduledoc false
  # Caches the doctor's findings for pages, which ask once a second: the doctor reads the modules of all
  # applications. It runs again when services or applications have changed, and every ten seconds.

  alias ExServiceMeshRouter.{Doctor, Registry}
  alias ExServiceMeshRouter.Gateway.{Applications, Store}

  # Changed settings of an endpoint, for which there is no event, appear after this time.
  @kept 10_000

  @doc "Returns the findings."
  def now(name) do
    seen = {Registry.claims(name), Applications.running()}
    time = System.monotonic_time(:millisecond)

    case Store.get(name, :findings, {nil, time, []}) do
      {^seen, until, findings} when time < until -> findings
      {_seen, _until, findings} -> ask(name, seen, time + @kept, findings)
    end
  end

  # The node stops: findings are useless.
  defp ask(_name, {_claims, :stopping}, _until, before), do: before

  # Other pages get the previous findings in the meantime.
  defp ask(name, seen, until, before) do
    Store.put(name, :findings, {seen, until, before})
    findings = Doctor.findings(name)
    Store.put(name, :findings, {seen, until, findings})
    findings
  end
end
