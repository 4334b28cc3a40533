defmodule ExServiceMeshRouter.Console.Index.Findings do
  @moduledoc false
  # Caches the doctor's findings for pages, which ask once a second. The doctor looks again when the
  # services or the running applications have changed, and otherwise every ten seconds, once for all
  # pages: it reads the modules of the applications.

  alias ExServiceMeshRouter.{Doctor, Registry}
  alias ExServiceMeshRouter.Gateway.{Applications, Store}

  # A changed setting of an endpoint, which no event announces, is seen after this time.
  @kept 10_000

  @doc "The findings, at most so old."
  def now(name) do
    seen = {Registry.claims(name), Applications.running()}
    time = System.monotonic_time(:millisecond)

    case Store.get(name, :findings, {nil, time, []}) do
      {^seen, until, findings} when time < until -> findings
      {_seen, _until, findings} -> ask(name, seen, time + @kept, findings)
    end
  end

  # Findings are of no use to a node that stops.
  defp ask(_name, {_claims, :stopping}, _until, before), do: before

  # Other pages get the previous findings meanwhile.
  defp ask(name, seen, until, before) do
    Store.put(name, :findings, {seen, until, before})
    findings = Doctor.findings(name)
    Store.put(name, :findings, {seen, until, findings})
    findings
  end
end
