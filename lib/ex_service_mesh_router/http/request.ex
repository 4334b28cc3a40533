defmodule ExServiceMeshRouter.Http.Request do
  @moduledoc false
  # The head of a request, read from a socket in `:http_bin` mode.

  @enforce_keys [:method, :path, :query, :headers]
  defstruct @enforce_keys

  @timeout 10_000
  @most_fields 256

  @doc "`{:ok, request}`, `{:error, status}` for what is to be refused, `:closed`."
  def read(socket) do
    with {:ok, {:http_request, method, target, _version}} <- packet(socket),
         {:ok, target} <- target(target),
         {:ok, headers} <- headers(socket, [], @most_fields) do
      [path | query] = String.split(target, "?", parts: 2)

      {:ok,
       %__MODULE__{
         method: to_string(method),
         path: path,
         query: List.first(query) || "",
         headers: headers
       }}
    else
      {:ok, _something_else} -> {:error, 400}
      other -> other
    end
  end

  @doc "All values of a header field, in order. The name in lower case."
  def all(request, name), do: for({^name, value} <- request.headers, do: value)

  @doc "The value of a header field that is there exactly once, or `nil`."
  def one(request, name), do: with([value] <- all(request, name), do: value, else: (_ -> nil))

  @doc "The parameters of the query, as a map."
  def query(request) do
    URI.decode_query(request.query)
  rescue
    ArgumentError -> %{}
  end

  defp packet(socket) do
    case :gen_tcp.recv(socket, 0, @timeout) do
      {:ok, packet} -> {:ok, packet}
      {:error, :emsgsize} -> {:error, 431}
      {:error, _gone} -> :closed
    end
  end

  defp target({:abs_path, path}), do: {:ok, path}
  defp target({:absoluteURI, _scheme, _host, _port, path}), do: {:ok, path}
  defp target(:*), do: {:ok, "*"}
  defp target(_other), do: {:error, 400}

  defp headers(_socket, _headers, 0), do: {:error, 431}

  defp headers(socket, headers, left) do
    case packet(socket) do
      {:ok, {:http_header, _, name, _, value}} ->
        name = name |> to_string() |> String.downcase(:ascii)
        headers(socket, [{name, value} | headers], left - 1)

      {:ok, :http_eoh} ->
        {:ok, Enum.reverse(headers)}

      {:ok, _malformed} ->
        {:error, 400}

      other ->
        other
    end
  end
end
