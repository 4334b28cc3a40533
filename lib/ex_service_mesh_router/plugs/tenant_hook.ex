defmodule ExServiceMeshRouter.TenantHook do
  @moduledoc """
  An `on_mount` hook that assigns the tenant of the page's host in a LiveView.

      live_session :default, on_mount: {ExServiceMeshRouter.TenantHook, base: :endpoint} do
        live "/", CounterLive
      end

  Afterwards, `socket.assigns.tenant` (`@tenant` in templates) is the tenant, or `nil` if the host has
  none. The options are those of `ExServiceMeshRouter.TenantPlug`, except that a function given as
  `:on_missing` gets the socket and returns `{:cont, socket}` or `{:halt, socket}`. To halt, it must
  redirect:

      def to_front_page(socket),
        do: {:halt, Phoenix.LiveView.redirect(socket, to: "/")}

  ## Which host

  A LiveView is mounted twice: with the page, and again when its socket connects. The hook uses the
  host of the request or connection (`:uri` of the connect info). If the endpoint does not request
  `:uri`, it uses `socket.host_uri`, which the browser's script sends. The client controls both, but a
  script can choose only the latter. Request `:uri`:

      # lib/auth_web/endpoint.ex
      socket "/live", Phoenix.LiveView.Socket,
        websocket: [connect_info: [:uri, session: @session_options]],
        longpoll: [connect_info: [:uri, session: @session_options]]

  A LiveView that is not mounted at the router (`live_render/3`) has no `host_uri` and also needs it.

  ## Which origins

  In production, Phoenix only accepts sockets from pages of the endpoint's own host. The pages of a
  tenant have another host: they render, but their sockets do not connect. Allow the tenants' origins:

      config :auth_web, AuthWeb.Endpoint,
        check_origin: ["//auth.local", "//*.auth.local"]
  """

  # LiveView is not a dependency. `apply/3` avoids compiler warnings about its functions.

  alias ExServiceMeshRouter.TenantNotFoundError
  alias ExServiceMeshRouter.Plugs.TenantOptions

  @doc "Assigns the tenant when a LiveView is mounted. `options` is `:default` or a keyword list."
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
