defmodule ExServiceMeshRouter.PrivateListeners.Running do
  @moduledoc false
  # Computes new settings for a running endpoint. Phoenix replaces all of its settings with the new
  # ones, and so would forget the options of `start_link`, which are in no environment. They are found
  # by comparing the settings that the endpoint runs with to its configured ones.

  @doc "`settings` with what was given to the endpoint when it was started on top of `configured`."
  def settings(endpoint, configured, settings),
    do: endpoint |> given(configured) |> merge(settings)

  # Phoenix keeps the settings in an ETS table named after the endpoint, beside its own terms.
  defp given(endpoint, configured) do
    running =
      for {key, value} <- :ets.tab2list(endpoint),
          is_atom(key) and key != :__config__,
          do: {key, value}

    differing(running, configured)
  rescue
    # There is no such table, and nothing to lose.
    ArgumentError -> []
  end

  defp differing(running, configured) do
    for {key, value} <- running,
        before <- [configured[key]],
        value != before or not Keyword.has_key?(configured, key),
        do: {key, if(both?(value, before), do: differing(value, before), else: value)}
  end

  defp merge(given, settings) do
    Keyword.merge(settings, given, fn _key, setting, value ->
      if both?(setting, value), do: merge(value, setting), else: value
    end)
  end

  defp both?(one, other),
    do: one != [] and Keyword.keyword?(one) and other != [] and Keyword.keyword?(other)
end
