defmodule BillingWeb.PageController do
  use BillingWeb, :controller

  def home(conn, _params), do: render(conn, :home, page_title: "Billing")
  def feed(conn, _params), do: render(conn, :feed, page_title: "Feed")
end
