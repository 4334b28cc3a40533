defmodule AuthWeb.Router do
  use Phoenix.Router, helpers: false

  import Phoenix.Controller
  import Phoenix.LiveView.Router
  import Plug.Conn
  import Shared.Tenancy, only: [require_known_tenant: 2]

  pipeline :browser do
    plug :accepts, ["html"]
    plug :fetch_session
    plug :fetch_live_flash
    plug :put_root_layout, html: {Shared.Layouts, :root}
    plug :protect_from_forgery
    plug :put_secure_browser_headers
    plug ExServiceMeshRouter.TenantPlug, base: :endpoint
    plug :require_known_tenant
  end

  scope "/", AuthWeb do
    pipe_through :browser

    get "/", PageController, :home
    get "/chat", PageController, :chat

    live_session :default,
      on_mount: [
        {ExServiceMeshRouter.TenantHook, base: :endpoint},
        {Shared.Tenancy, :require_known_tenant}
      ] do
      live "/counter", CounterLive
    end
  end
end
