defmodule ExServiceMeshRouter.LiveDashboard do
  @moduledoc """
  A page of Phoenix LiveDashboard with what goes through the gateway.

      # lib/auth_web/mesh_page.ex
      defmodule AuthWeb.MeshPage do
        use ExServiceMeshRouter.LiveDashboard
      end

      # lib/auth_web/router.ex
      live_dashboard "/dashboard", additional_pages: [mesh: AuthWeb.MeshPage]

  The page shows the services in a table that can be sorted and searched, the sums over all of them,
  what went wrong, what the doctor found, and what became of the routes. It follows the dashboard's
  own refresher and its choice of nodes. Rates and times are those since the last refresh, and of a
  page that was just opened, those of its first second. It needs no `index`.

  It takes `phoenix_live_dashboard` 0.8 in the application whose module this is. The page is compiled
  there, and nowhere else: the gateway itself has no dependency on the dashboard, and no order in
  which the two are compiled matters.

  For a gateway that the application did not start (`ExServiceMeshRouter.Supervisor`), name it:

      live_dashboard "/dashboard",
        additional_pages: [mesh: {AuthWeb.MeshPage, gateway: MyApp.AdminGateway}]

  On a node where the gateway does not run, the menu has the page without a link.
  """

  @doc false
  defmacro __using__(_options) do
    unless Code.ensure_loaded?(Phoenix.LiveDashboard.PageBuilder) do
      raise CompileError,
        file: __CALLER__.file,
        line: __CALLER__.line,
        description:
          "#{inspect(__CALLER__.module)} is a page of Phoenix LiveDashboard, which this application " <>
            "does not have; add {:phoenix_live_dashboard, \"~> 0.8\"} to its dependencies"
    end

    # What needs no dashboard is in Reading. What is here is compiled where there is one.
    quote do
      use Phoenix.LiveDashboard.PageBuilder

      import ExServiceMeshRouter.LiveDashboard.Format
      alias ExServiceMeshRouter.LiveDashboard.Reading

      @impl true
      def init(options) do
        gateway = Keyword.get(options, :gateway, ExServiceMeshRouter)
        {:ok, gateway, process: Module.concat(gateway, Supervisor)}
      end

      @impl true
      def menu_link(gateway, %{processes: running}) do
        if Module.concat(gateway, Supervisor) in running,
          do: {:ok, "Service mesh"},
          else: {:disabled, "Service mesh"}
      end

      @impl true
      def mount(_params, gateway, socket) do
        # There is no rate before a second reading, and the refresher's may be half a minute away.
        if connected?(socket), do: Process.send_after(self(), :second_reading, 1_000)
        {:ok, assign(socket, :reading, Reading.new(socket.assigns.page.node, gateway))}
      end

      @impl true
      def handle_refresh(socket), do: {:noreply, update(socket, :reading, &Reading.next/1)}

      @impl true
      def handle_info(:second_reading, socket), do: handle_refresh(socket)
      def handle_info(_other, socket), do: {:noreply, socket}

      @impl true
      def render(%{reading: %{facts: nil}} = var!(assigns)) do
        ~H"""
        <p>The gateway does not run on this node.</p>
        """
      end

      def render(var!(assigns)) do
        var!(assigns) = assign(var!(assigns), :total, Reading.total(var!(assigns).reading))

        ~H"""
        <.row>
          <:col>
            <.card inner_title="Requests/s" inner_hint="Since the last refresh, all services.">
              <%= number(@total.rate) %>
            </.card>
          </:col>
          <:col>
            <.card inner_title="Errors 5xx/s" inner_hint="Since the last refresh, all services.">
              <%= number(@total.errors) %>
            </.card>
          </:col>
          <:col>
            <.card
              inner_title="Time p50, p99"
              inner_hint="From a request's head to the end of its response, since the last refresh."
            >
              <%= times(@total) %>
            </.card>
          </:col>
        </.row>
        <.row>
          <:col>
            <.card inner_title="In flight" inner_hint="Requests without the end of their response.">
              <%= @total.in_flight %>
            </.card>
          </:col>
          <:col>
            <.card inner_title="Tunnels" inner_hint="WebSockets that are open.">
              <%= @total.tunnels %>
            </.card>
          </:col>
          <:col>
            <.card inner_title="Connections" inner_hint="Of clients, to the gateway.">
              <%= Reading.connections(@reading) %>
            </.card>
          </:col>
        </.row>
        <.live_table
          id="mesh-services"
          dom_id="mesh-services"
          page={@page}
          title={"Services behind #{Enum.join(Reading.addresses(@reading), ", ")}"}
          hint="Rates and times are those since the last refresh; requests and bytes, since the gateway started."
          rows_name="services"
          row_fetcher={fn params, _node -> Reading.rows(@reading, params) end}
        >
          <:col :let={service} field={:name} header="Service" sortable={:asc}>
            <%= service.name %>
            <div><small class="text-muted"><%= Enum.join(service.hosts, " ") %></small></div>
            <div><small class="text-muted"><%= upstreams(service) %></small></div>
          </:col>
          <:col :let={service} field={:state} sortable={:desc}>
            <span class={unless up?(service), do: "text-danger"}><%= state(service) %></span>
          </:col>
          <:col :let={service} field={:rate} header="Requests/s" text_align="right" sortable={:desc}>
            <%= number(service.rate) %>
          </:col>
          <:col :let={service} field={:errors} header="5xx/s" text_align="right" sortable={:desc}>
            <span class={if failing?(service), do: "text-danger"}><%= number(service.errors) %></span>
          </:col>
          <:col :let={service} field={:p50} header="p50" text_align="right" sortable={:desc}>
            <span class="text-nowrap"><%= time(service.p50) %></span>
          </:col>
          <:col :let={service} field={:p99} header="p99" text_align="right" sortable={:desc}>
            <span class="text-nowrap"><%= time(service.p99) %></span>
          </:col>
          <:col field={:in_flight} header="In flight" text_align="right" sortable={:desc} />
          <:col field={:tunnels} header="Tunnels" text_align="right" sortable={:desc} />
          <:col field={:requests} header="Requests" text_align="right" sortable={:desc} />
          <:col :let={service} field={:received} header="Received" text_align="right" sortable={:desc}>
            <span class="text-nowrap"><%= bytes(service.received) %></span>
          </:col>
          <:col :let={service} field={:sent} header="Sent" text_align="right" sortable={:desc}>
            <span class="text-nowrap"><%= bytes(service.sent) %></span>
          </:col>
        </.live_table>

        <%= for finding <- Reading.findings(@reading) do %>
          <.card_title title={finding.problem} />
          <div class="card mb-4">
            <div class="card-body">
              <p><%= finding.why %></p>
              <p>Fix, in <code><%= finding.file %></code>:</p>
              <pre class="mb-0"><%= finding.fix %></pre>
            </div>
          </div>
        <% end %>

        <.card_title
          title="What went wrong"
          hint="Requests that failed, since the gateway started. A 5xx that an endpoint answered is in the table."
        />
        <div class="card mb-4" id="mesh-errors">
          <div class="card-body">
            <div :for={line <- Reading.errors(@reading)}><%= line %></div>
            <div :if={Reading.errors(@reading) == []}>Nothing.</div>
          </div>
        </div>

        <.card_title title="Routes" hint="What became of them, the latest first. Times are UTC." />
        <div class="card mb-4" id="mesh-routes">
          <div class="card-body">
            <div :for={{time, line} <- Reading.history(@reading)}>
              <span class="text-muted"><%= clock(time) %></span> <%= line %>
            </div>
          </div>
        </div>
        """
      end
    end
  end
end
