defmodule ExServiceMeshRouter.LiveDashboard do
  @moduledoc """
  A page of Phoenix LiveDashboard with the traffic of the gateway.

      # lib/auth_web/mesh_page.ex
      defmodule AuthWeb.MeshPage do
        use ExServiceMeshRouter.LiveDashboard
      end

      # lib/auth_web/router.ex
      live_dashboard "/dashboard", additional_pages: [mesh: AuthWeb.MeshPage]

  The page has a table of the services, which can be sorted and searched, their sums, the state of the
  mesh, the last errors, the doctor's findings, and the last changes of routes. It uses the refresh interval and the node of
  the dashboard. Rates and latencies are those since the last refresh, or those of the first second. The
  page does not need the `index`.

  The application of the module needs `phoenix_live_dashboard` 0.8. The gateway itself does not depend on
  the dashboard.

  For a further gateway (`ExServiceMeshRouter.Supervisor`), set its name:

      live_dashboard "/dashboard",
        additional_pages: [mesh: {AuthWeb.MeshPage, gateway: MyApp.AdminGateway}]

  On a node without the gateway, the menu has the page without a link.
  """

  @doc false
  defmacro __using__(_options) do
    unless Code.ensure_loaded?(Phoenix.LiveDashboard.PageBuilder) do
      raise CompileError,
        file: __CALLER__.file,
        line: __CALLER__.line,
        description:
          "#{inspect(__CALLER__.module)} needs Phoenix LiveDashboard; add " <>
            "{:phoenix_live_dashboard, \"~> 0.8\"} to the dependencies of its application"
    end

    # Compiled in the application. Code that does not need the dashboard is in Reading.
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
        # Rates need a second reading, and the next refresh may be half a minute away.
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
              inner_hint="From the request head to the response head, since the last refresh."
            >
              <%= times(@total) %>
            </.card>
          </:col>
        </.row>
        <.row>
          <:col>
            <.card inner_title="In flight" inner_hint="Requests whose response has not ended.">
              <%= @total.in_flight %>
            </.card>
          </:col>
          <:col>
            <.card inner_title="Tunnels" inner_hint="Open WebSockets.">
              <%= @total.tunnels %>
            </.card>
          </:col>
          <:col>
            <.card inner_title="Connections" inner_hint="Open client connections.">
              <%= Reading.connections(@reading) %>
            </.card>
          </:col>
        </.row>
        <.live_table
          id="mesh-services"
          dom_id="mesh-services"
          page={@page}
          title={"Services behind #{Enum.join(Reading.addresses(@reading), ", ")}"}
          hint="Rates and times: since the last refresh. Requests and bytes: since the gateway started."
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

        <.card_title title="Mesh" hint="Other nodes, and those of them that requests avoid." />
        <div class="card mb-4" id="mesh-nodes">
          <div class="card-body">
            <div><%= Reading.mesh(@reading) %></div>
            <div :for={line <- Reading.avoided(@reading)}><%= line %></div>
          </div>
        </div>

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
          title="Errors"
          hint="Failed requests since the gateway started. 5xx responses of endpoints are in the table."
        />
        <div class="card mb-4" id="mesh-errors">
          <div class="card-body">
            <div :for={line <- Reading.errors(@reading)}><%= line %></div>
            <div :if={Reading.errors(@reading) == []}>None.</div>
          </div>
        </div>

        <.card_title title="Routes" hint="Changes, the latest first. Times are UTC." />
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
