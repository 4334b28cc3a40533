defmodule BillingWeb.Router do
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
  end

  pipeline :tenant do
    plug ExServiceMeshRouter.TenantPlug, base: :endpoint
    plug :require_known_tenant
  end

  scope "/", BillingWeb do
    pipe_through [:browser, :tenant]

    get "/", PageController, :home
    get "/feed", PageController, :feed

    live_session :default,
      on_mount: [
        {ExServiceMeshRouter.TenantHook, base: :endpoint},
        {Shared.Tenancy, :require_known_tenant}
      ] do
      live "/invoices", InvoicesLive
      live "/upload", UploadLive
    end
  end

  scope "/", BillingWeb do
    pipe_through :tenant

    get "/events", EventsController, :stream
  end
end
