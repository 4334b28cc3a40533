defmodule ExServiceMeshRouter.Http.Request do
  @moduledoc false
  # A request: its head, and its body, which stays in the socket until reduce_body/3 reads it. Throws
  # `{:refuse, status}` where the client has made a mistake, and `:closed` where it is gone.

  alias ExServiceMeshRouter.Http.Wire

  # `body` is what is unread: a number of bytes, or `:chunked`. `expect?`: the client waits for "100
  # Continue" before it sends the body.
  defstruct [:socket, :timeout, :target, :path, method: "GET", version: {1, 1}, headers: []] ++
              [body: 0, expect?: false, keep_alive?: false]

  @piece 65_536

  @doc "Reads the head of the next request."
  def read(socket, timeout) do
    case Wire.head(socket, timeout) do
      {:ok, {:http_request, method, target, version}, headers} when version in [{1, 0}, {1, 1}] ->
        %__MODULE__{socket: socket, timeout: timeout, version: version, headers: headers}
        |> Map.merge(%{method: to_string(method), target: target(target)})
        |> check()

      {:ok, {:http_request, _method, _target, _version}, _headers} ->
        throw({:refuse, 505})

      {:error, :too_large} ->
        throw({:refuse, 431})

      {:error, reason} when reason != :malformed ->
        throw(:closed)

      _malformed ->
        throw({:refuse, 400})
    end
  end

  defp target({:abs_path, path}), do: path
  defp target({:absoluteURI, _scheme, _host, _port, path}), do: path
  defp target({:scheme, host, port}), do: "#{host}:#{port}"
  defp target(other), do: to_string(other)

  defp check(request) do
    hosts = length(all(request, "host"))
    http_1_1? = request.version == {1, 1}
    if hosts > 1 or (hosts == 0 and http_1_1?), do: throw({:refuse, 400})

    %{
      request
      | path: request.target |> String.split("?", parts: 2) |> hd(),
        body:
          framing(all(request, "content-length"), all(request, "transfer-encoding"), http_1_1?),
        expect?: http_1_1? and token?(request, "expect", "100-continue"),
        keep_alive?: http_1_1? and not token?(request, "connection", "close")
    }
  end

  defp framing([], [], _http_1_1?), do: 0

  defp framing([], [coding], true),
    do: if(String.downcase(coding) == "chunked", do: :chunked, else: throw({:refuse, 501}))

  defp framing(lengths, codings, _http_1_1?) do
    with {[length], []} <- {lengths, codings}, true <- length =~ ~r/\A[0-9]{1,18}\z/ do
      String.to_integer(length)
    else
      _ -> throw({:refuse, 400})
    end
  end

  @doc "All values of a field, in order. The name in lower case."
  def all(request, name), do: for({^name, value} <- request.headers, do: value)

  @doc "The value of a field that occurs exactly once, or `nil`."
  def one(request, name), do: with([value] <- all(request, name), do: value, else: (_ -> nil))

  @doc "Whether a field that is a list has the token, in any case: `Connection: a, Upgrade`."
  def token?(request, name, token) do
    tokens = request |> all(name) |> Enum.flat_map(&String.split(&1, ","))
    Enum.any?(tokens, &(&1 |> String.trim() |> String.downcase() == token))
  end

  @doc "Folds over the body as it arrives; returns `{acc, request}`, the body then being read."
  def reduce_body(%{body: 0} = request, acc, _fun), do: {acc, request}

  def reduce_body(request, acc, fun) do
    if request.expect?, do: Wire.send!(request.socket, "HTTP/1.1 100 Continue\r\n\r\n")
    {body(request, request.body, acc, fun), %{request | body: 0, expect?: false}}
  end

  defp body(_request, 0, acc, _fun), do: acc

  defp body(request, :chunked, acc, fun) do
    case Regex.run(~r/\A([0-9a-f]{1,15})[ \t]*(?:;.*)?\r\n\z/i, line(request)) do
      [_line, size] -> chunk(request, String.to_integer(size, 16), acc, fun)
      nil -> throw({:refuse, 400})
    end
  end

  defp body(request, left, acc, fun) do
    piece = min(left, @piece)
    data = Wire.recv!(request.socket, :raw, piece, request.timeout)
    body(request, left - piece, fun.(data, acc), fun)
  end

  # Trailers are skipped.
  defp chunk(request, 0, acc, fun),
    do: if(line(request) == "\r\n", do: acc, else: chunk(request, 0, acc, fun))

  defp chunk(request, size, acc, fun) do
    acc = body(request, size, acc, fun)
    if line(request) == "\r\n", do: body(request, :chunked, acc, fun), else: throw({:refuse, 400})
  end

  defp line(request), do: Wire.recv!(request.socket, :line, 0, request.timeout)
end
