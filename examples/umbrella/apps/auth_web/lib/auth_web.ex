defmodule AuthWeb do
  @moduledoc false

  def controller do
    quote do
      use Phoenix.Controller, formats: [:html], layouts: []
      import Plug.Conn
      use Phoenix.VerifiedRoutes, endpoint: AuthWeb.Endpoint, router: AuthWeb.Router
    end
  end

  def live_view do
    quote do
      use Phoenix.LiveView
      unquote(html_helpers())
    end
  end

  def html do
    quote do
      use Phoenix.Component
      unquote(html_helpers())
    end
  end

  defp html_helpers do
    quote do
      import Shared.Components
      import AuthWeb.Frame
      use Phoenix.VerifiedRoutes, endpoint: AuthWeb.Endpoint, router: AuthWeb.Router
    end
  end

  defmacro __using__(which) when is_atom(which), do: apply(__MODULE__, which, [])
end
