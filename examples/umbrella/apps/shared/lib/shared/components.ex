defmodule Shared.Components do
  @moduledoc """
  Components of the pages of all services.
  """

  use Phoenix.Component

  @doc "The frame of every page."
  attr :service, :string, required: true
  attr :tenant, :string, default: nil
  attr :nav, :list, default: [], doc: "pairs of path and title"
  slot :inner_block, required: true

  def page(assigns) do
    ~H"""
    <header class="bar">
      <a class="name" href="/">{@service}</a>
      <span :if={@tenant} id="tenant" class="badge">{@tenant}</span>
      <nav>
        <a :for={{path, title} <- @nav} href={path}>{title}</a>
      </nav>
    </header>
    <main>
      {render_slot(@inner_block)}
    </main>
    """
  end

  @doc "A box with a title."
  attr :title, :string, default: nil
  slot :inner_block, required: true

  def card(assigns) do
    ~H"""
    <section class="card">
      <h2 :if={@title}>{@title}</h2>
      {render_slot(@inner_block)}
    </section>
    """
  end

  @doc "Links to the other services of the current tenant, and to all tenants."
  attr :endpoint, :atom, required: true
  attr :tenant, :string, default: nil

  def services(assigns) do
    ~H"""
    <.card title="Services">
      <p class="links">
        <a :for={{name, url} <- service_urls(@tenant)} href={url}>{name}</a>
      </p>
    </.card>
    <.card title="Tenants of this service">
      <p class="links">
        <a href={tenant_url(@endpoint, nil)}>none</a>
        <a :for={tenant <- Shared.Tenants.all()} href={tenant_url(@endpoint, tenant)}>{tenant}</a>
        <a href={tenant_url(@endpoint, "nobody")}>nobody (404)</a>
      </p>
    </.card>
    """
  end

  # From the gateway, so that no second list is needed. In tests it does not run, and there are none.
  defp service_urls(tenant) do
    for %{endpoint: endpoint, application: application} <- ExServiceMeshRouter.services(),
        endpoint != nil,
        do: {to_string(application), tenant_url(endpoint, tenant)}
  end

  defp tenant_url(endpoint, tenant) do
    url = endpoint.struct_url()
    host = Enum.join(List.wrap(tenant) ++ [url.host], ".")
    URI.to_string(%{url | host: host, path: "/"})
  end
end
