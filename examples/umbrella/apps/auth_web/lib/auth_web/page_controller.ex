defmodule AuthWeb.PageController do
  use AuthWeb, :controller

  def home(conn, _params), do: render(conn, :home, page_title: "Auth")
  def chat(conn, _params), do: render(conn, :chat, page_title: "Chat")
end
