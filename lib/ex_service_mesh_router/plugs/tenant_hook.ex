defmodule ExServiceMeshRouter.TenantHook do
  @moduledoc """
  An `on_mount` hook that puts the tenant of the page's host into the assigns of a LiveView.

      live_session :default, on_mount: {ExServiceMeshRouter.TenantHook, base: :endpoint} do
        live "/", CounterLive
      end

  After it, `socket.assigns.tenant` (in templates `@tenant`) is the tenant, or `nil` where the host
  names none. The options are those of `ExServiceMeshRouter.TenantPlug`, with two differences that
  come from LiveView: `{module, function}` and functions given as `:on_missing` are called with the
  socket and return `{:cont, socket}` or `{:halt, socket}`, and they halt by redirecting:

      def to_front_page(socket),
        do: {:halt, Phoenix.LiveView.redirect(socket, to: "/")}

  ## Which host

  A LiveView is mounted twice: with the page, and again when its socket connects. The host is that
  of the request or the connection itself (the `:uri` of the connect info), or, where the endpoint
  does not ask for that, `socket.host_uri`. The latter is an address that the browser's script
  sends. Both are the client's claim; ask for the former to have one that no script can choose:

      # lib/auth_web/endpoint.ex
      socket "/live", Phoenix.LiveView.Socket,
        websocket: [connect_info: [:uri, session: @session_options]],
        longpoll: [connect_info: [:uri, session: @session_options]]

  It is needed, too, for a LiveView that is not mounted at the router (`live_render/3`), since that
  one has no `host_uri`.

  ## Which origins

  In production, Phoenix lets sockets connect from pages of the endpoint's own host only, and a
  tenant's pages have another one. Without this, they render, but never connect:

      config :auth_web, AuthWeb.Endpoint,
        check_origin: ["//auth.local", "//*.auth.local"]
  """

  # LiveView is the application's, never ours: where it is absent, nobody calls this module. Its
  # functions are applied and not called, or the compiler would warn every umbrella that has it.

  alias ExServiceMeshRouter.TenantNotFoundError
  alias ExServiceMeshRouter.Plugs.TenantOptions

  @doc "Assigns the tenant while a LiveView is mounted. `options` is `:default` or a keyword list."
  @spec on_mount(:default | keyword(), map() | atom(), map(), socket) ::
          {:cont, socket} | {:halt, socket}
        when socket: struct()
  def on_mount(:default, params, session, socket), do: on_mount([], params, session, socket)

  def on_mount(options, _params, _session, socket) do
    options = TenantOptions.new!(options, __MODULE__)
    host = host(socket)
    tenant = TenantOptions.tenant(options, host, socket.endpoint)
    socket = apply(Phoenix.Component, :assign, [socket, options.key, tenant])

    if tenant, do: {:cont, socket}, else: missing(options.on_missing, socket, host)
  end

  defp host(socket) do
    case apply(Phoenix.LiveView, :get_connect_info, [socket, :uri]) || socket.host_uri do
      %URI{host: host} -> host
      :not_mounted_at_router -> nil
    end
  end

  defp missing(:continue, socket, _host), do: {:cont, socket}
  defp missing(:not_found, _socket, host), do: raise(TenantNotFoundError, host: host)
  defp missing({module, fun}, socket, _host), do: apply(module, fun, [socket])
  defp missing(fun, socket, _host), do: fun.(socket)
end
