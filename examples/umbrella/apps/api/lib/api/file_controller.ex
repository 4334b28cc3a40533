defmodule Api.FileController do
  use Phoenix.Controller, formats: [:json]

  import Plug.Conn

  # Streams the body: neither the gateway nor this controller holds the file.
  def put(conn, %{"name" => name}) do
    {conn, size, hash} = read(conn, 0, :crypto.hash_init(:sha256))

    json(conn, %{
      name: name,
      size: size,
      sha256: hash |> :crypto.hash_final() |> Base.encode16(case: :lower)
    })
  end

  defp read(conn, size, hash) do
    case read_body(conn, length: 65_536) do
      {:more, part, conn} -> read(conn, size + byte_size(part), :crypto.hash_update(hash, part))
      {:ok, part, conn} -> {conn, size + byte_size(part), :crypto.hash_update(hash, part)}
    end
  end
end
