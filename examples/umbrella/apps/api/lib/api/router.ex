defmodule Api.Router do
  use Phoenix.Router, helpers: false

  import Phoenix.Controller
  import Shared.Tenancy, only: [require_known_tenant: 2]

  pipeline :api do
    plug :accepts, ["json"]
    plug ExServiceMeshRouter.TenantPlug, base: :endpoint
    plug :require_known_tenant
  end

  scope "/", Api do
    pipe_through :api

    get "/", RequestController, :show
    put "/files/:name", FileController, :put
  end
end
