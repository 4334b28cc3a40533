defmodule ExServiceMeshRouter.Doctor.Tenants do
  @moduledoc false
  # Finds out whether an application resolves tenants, which is if one of its compiled modules names one
  # of the modules below. Slow, because it reads all modules; Console.Index.Findings caches the findings.

  @names [
    "Elixir.Router.Shared.TenantResolver",
    "Elixir.ExServiceMeshRouter.TenantPlug",
    "Elixir.ExServiceMeshRouter.TenantHook"
  ]

  @doc "Returns whether modules of the application name a module that resolves tenants."
  def used?(application) do
    case :code.lib_dir(application) do
      {:error, :bad_name} ->
        false

      directory ->
        directory |> Path.join("ebin/*.beam") |> Path.wildcard() |> Enum.any?(&read/1)
    end
  end

  # Atoms are in the atom table, or within terms (`on_mount {Hook, options}`) in the compressed literals.
  defp read(file) do
    case :beam_lib.chunks(to_charlist(file), [~c"AtU8", ~c"LitT"], [:allow_missing_chunks]) do
      {:ok, {_module, chunks}} -> Enum.any?(chunks, &named?/1)
      _ -> false
    end
  end

  defp named?({_chunk, :missing_chunk}), do: false
  defp named?({~c"AtU8", table}), do: :binary.match(table, @names) != :nomatch

  # OTP 28 and later do not compress them; the size is then 0.
  defp named?({~c"LitT", <<0::32, literals::binary>>}),
    do: :binary.match(literals, @names) != :nomatch

  defp named?({~c"LitT", <<_size::32, compressed::binary>>}),
    do: compressed |> :zlib.uncompress() |> :binary.match(@names) != :nomatch
end
