defmodule ExServiceMeshRouter.Doctor.Tenants do
  @moduledoc false
  # Whether an application resolves tenants: whether a module of it names one of ours that does. Read
  # from the compiled modules; their sources need not be there. This is slow
  # (a file each); Console.Index.Findings caches what comes of it.

  @names [
    "Elixir.Router.Shared.TenantResolver",
    "Elixir.ExServiceMeshRouter.TenantPlug",
    "Elixir.ExServiceMeshRouter.TenantHook"
  ]

  @doc "Whether modules of the application name a resolver of tenants."
  def used?(application) do
    case :code.lib_dir(application) do
      {:error, :bad_name} ->
        false

      directory ->
        directory |> Path.join("ebin/*.beam") |> Path.wildcard() |> Enum.any?(&read/1)
    end
  end

  # Atoms stand in a table of their own, and inside terms (`on_mount {Hook, options}`) among the
  # compressed literals.
  defp read(file) do
    case :beam_lib.chunks(to_charlist(file), [~c"AtU8", ~c"LitT"], [:allow_missing_chunks]) do
      {:ok, {_module, chunks}} -> Enum.any?(chunks, &named?/1)
      _ -> false
    end
  end

  defp named?({_chunk, :missing_chunk}), do: false
  defp named?({~c"AtU8", table}), do: :binary.match(table, @names) != :nomatch

  # From OTP 28 on they are not compressed, and the size says 0.
  defp named?({~c"LitT", <<0::32, literals::binary>>}),
    do: :binary.match(literals, @names) != :nomatch

  defp named?({~c"LitT", <<_size::32, compressed::binary>>}),
    do: compressed |> :zlib.uncompress() |> :binary.match(@names) != :nomatch
end
