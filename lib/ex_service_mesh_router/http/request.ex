defmodule ExServiceMeshRouter.Http.Request do
  @moduledoc false
  # Reads a request: its head, and on demand its body, which stays in the socket until reduce_body/3.
  # Throws what Http.Wire throws.

  alias ExServiceMeshRouter.Http.Wire

  # `body` is the unread part: a number of bytes, or `:chunked`. `expect?`: the client waits for "100
  # Continue" before it sends the body.
  defstruct [:socket, :timeout, :target, :path, method: "GET", version: {1, 1}, headers: []] ++
              [body: 0, expect?: false, keep_alive?: false]

  @piece 65_536

  @doc "Reads the head of the next request."
  def read(socket, timeout) do
    case Wire.head(socket, timeout) do
      {{:http_request, method, target, version}, headers} when version in [{1, 0}, {1, 1}] ->
        request = %__MODULE__{socket: socket, timeout: timeout, version: version}
        check(%{request | method: to_string(method), target: target(target), headers: headers})

      {{:http_request, _method, _target, _version}, _headers} ->
        throw({:refuse, 505})

      _response ->
        throw({:refuse, 400})
    end
  end

  defp target({:abs_path, path}), do: path
  defp target({:absoluteURI, _scheme, _host, _port, path}), do: path
  defp target({:scheme, host, port}), do: "#{host}:#{port}"
  defp target(other), do: to_string(other)

  defp check(request) do
    http_1_1? = request.version == {1, 1}
    hosts = length(all(request, "host"))
    if hosts > 1 or (hosts == 0 and http_1_1?), do: throw({:refuse, 400})

    %{
      request
      | path: request.target |> String.split("?", parts: 2) |> hd(),
        body: body(all(request, "content-length"), all(request, "transfer-encoding"), http_1_1?),
        expect?: http_1_1? and token?(request, "expect", "100-continue"),
        keep_alive?: http_1_1? and not token?(request, "connection", "close")
    }
  end

  # RFC 9112, section 6.
  defp body([], [], _http_1_1?), do: 0

  defp body([], [coding], true),
    do: if(String.downcase(coding) == "chunked", do: :chunked, else: throw({:refuse, 501}))

  defp body([length], [], _http_1_1?) do
    if length =~ ~r/\A[0-9]{1,18}\z/, do: String.to_integer(length), else: throw({:refuse, 400})
  end

  defp body(_lengths, _codings, _http_1_1?), do: throw({:refuse, 400})

  @doc "Returns all values of a field in order. The name must be in lower case."
  def all(request, name), do: for({^name, value} <- request.headers, do: value)

  @doc "Returns the value of a field that occurs exactly once, otherwise `nil`."
  def one(request, name), do: with([value] <- all(request, name), do: value, else: (_ -> nil))

  @doc "Returns whether a list field such as `Connection: a, Upgrade` contains the token, in any case."
  def token?(request, name, token) do
    tokens = request |> all(name) |> Enum.flat_map(&String.split(&1, ","))
    Enum.any?(tokens, &(&1 |> String.trim() |> String.downcase() == token))
  end

  @doc "Reduces the body as it arrives. Returns `{acc, request}`, the request without unread body."
  def reduce_body(request, acc, fun) do
    if request.expect? and request.body != 0,
      do: Wire.send!(request.socket, "HTTP/1.1 100 Continue\r\n\r\n")

    {reduce(request, request.body, acc, fun), %{request | body: 0}}
  end

  defp reduce(_request, 0, acc, _fun), do: acc

  defp reduce(request, :chunked, acc, fun) do
    case Regex.run(~r/\A([0-9a-f]{1,15})[ \t]*(?:;.*)?\r\n\z/i, line(request)) do
      [_line, size] -> chunk(request, String.to_integer(size, 16), acc, fun)
      nil -> throw({:refuse, 400})
    end
  end

  defp reduce(request, left, acc, fun) do
    data = Wire.recv!(request.socket, :raw, min(left, @piece), request.timeout)
    reduce(request, left - byte_size(data), fun.(data, acc), fun)
  end

  # Ignores trailers.
  defp chunk(request, 0, acc, fun),
    do: if(line(request) == "\r\n", do: acc, else: chunk(request, 0, acc, fun))

  defp chunk(request, size, acc, fun) do
    acc = reduce(request, size, acc, fun)

    if line(request) == "\r\n",
      do: reduce(request, :chunked, acc, fun),
      else: throw({:refuse, 400})
  end

  defp line(request), do: Wire.recv!(request.socket, :line, 0, request.timeout)
end
