defmodule Demo.HTTP.Request do
  @moduledoc """
  A request: its head, and its body as a stream that is read only when somebody asks for it.

  `headers` are in the order in which they came, repetitions included, with names in lower case.
  """

  alias Demo.HTTP.{Body, Reader}

  @enforce_keys [:method, :target, :path, :version, :headers, :body, :reader]
  defstruct [:method, :target, :path, :version, :headers, :body, :reader]

  @type t :: %__MODULE__{
          method: String.t(),
          target: String.t(),
          path: String.t(),
          version: {1, 0 | 1},
          headers: [{String.t(), String.t()}],
          body: Body.t(),
          reader: Reader.t()
        }

  @max_headers 200

  @doc """
  Reads the head of the next request. An error is the status to answer with; after it, nothing on
  this connection can be trusted to be where it seems.
  """
  @spec read(Reader.t()) :: {:ok, t()} | {:error, 400 | 431 | 501 | 505}
  def read(reader) do
    with {:ok, {method, target, version}, reader} <- request_line(reader),
         {:ok, headers, reader} <- headers(reader, []),
         :ok <- check_host(version, for({"host", host} <- headers, do: host)),
         {:ok, body} <- Body.framing(version, headers) do
      request = %__MODULE__{
        method: method,
        target: target,
        path: target |> String.split("?", parts: 2) |> hd(),
        version: version,
        headers: headers,
        body: body,
        reader: reader
      }

      {:ok, request}
    end
  end

  @doc "The first value of a header, `nil` where there is none."
  @spec header(t(), String.t()) :: String.t() | nil
  def header(request, name) do
    with {_name, value} <- List.keyfind(request.headers, name, 0), do: value
  end

  @doc "Whether a header that is a list has the token, in any case: `Connection: a, Upgrade`."
  @spec token?(t(), String.t(), String.t()) :: boolean()
  def token?(request, name, token) do
    for({^name, value} <- request.headers, do: value)
    |> Enum.flat_map(&String.split(&1, ","))
    |> Enum.any?(&(String.downcase(String.trim(&1)) == token))
  end

  @doc "Folds over the body as it comes. Afterwards the body is at its end."
  @spec reduce_body(t(), acc, (binary(), acc -> acc)) :: {acc, t()} when acc: var
  def reduce_body(request, acc, fun) do
    case Body.read(request.body, request.reader) do
      {:ok, data, body, reader} ->
        reduce_body(%{request | body: body, reader: reader}, fun.(data, acc), fun)

      {:done, reader} ->
        {acc, %{request | body: :none, reader: reader}}
    end
  end

  defp request_line(reader) do
    case Reader.packet(reader, :http_bin) do
      {{:http_request, method, target, version}, reader} when version in [{1, 0}, {1, 1}] ->
        {:ok, {to_string(method), target(target), version}, reader}

      {{:http_request, _method, _target, _version}, _reader} ->
        {:error, 505}

      # One empty line in front of a request is to be ignored (RFC 9112, section 2.2).
      {{:http_error, line}, reader} when line in ["\r\n", "\n"] ->
        request_line(reader)

      _other ->
        {:error, 400}
    end
  end

  defp target({:abs_path, path}), do: path
  defp target({:absoluteURI, _scheme, _host, _port, path}), do: path
  defp target({:scheme, host, port}), do: "#{host}:#{port}"
  defp target(:*), do: "*"
  defp target(other), do: other

  defp headers(_reader, headers) when length(headers) > @max_headers, do: {:error, 431}

  defp headers(reader, headers) do
    case Reader.packet(reader, :httph_bin) do
      {{:http_header, _, name, _, value}, reader} ->
        headers(reader, [{name |> to_string() |> String.downcase(:ascii), trim(value)} | headers])

      {:http_eoh, reader} ->
        {:ok, Enum.reverse(headers), reader}

      _other ->
        {:error, 400}
    end
  end

  # decode_packet takes the white space off the front only.
  defp trim(value) do
    if String.ends_with?(value, [" ", "\t"]),
      do: value |> binary_part(0, byte_size(value) - 1) |> trim(),
      else: value
  end

  defp check_host({1, 0}, []), do: :ok
  defp check_host(_version, [_host]), do: :ok
  defp check_host(_version, _hosts), do: {:error, 400}
end
