# An application with LiveDashboard and the page in it, for a machine that has the packages. Compiled
# by the test: nothing here can be, where they are not.

defmodule ExServiceMeshRouter.Console.LiveDashboardTest.Page do
  use ExServiceMeshRouter.LiveDashboard
end

defmodule ExServiceMeshRouter.Console.LiveDashboardTest.Router do
  use Phoenix.Router
  import Phoenix.LiveDashboard.Router

  pipeline :browser do
    plug(:fetch_session)
    plug(:protect_from_forgery)
  end

  scope "/" do
    pipe_through(:browser)

    live_dashboard("/dashboard",
      additional_pages: [
        mesh:
          {ExServiceMeshRouter.Console.LiveDashboardTest.Page,
           gateway: ExServiceMeshRouter.Console.LiveDashboardTest.Gateway},
        other:
          {ExServiceMeshRouter.Console.LiveDashboardTest.Page,
           gateway: ExServiceMeshRouter.Console.LiveDashboardTest.Nobody}
      ]
    )
  end
end

defmodule ExServiceMeshRouter.Console.LiveDashboardTest.Endpoint do
  use Phoenix.Endpoint, otp_app: :ex_service_mesh_router_board

  plug(Plug.Session, store: :cookie, key: "_board_key", signing_salt: "of the board")
  plug(ExServiceMeshRouter.Console.LiveDashboardTest.Router)
end
