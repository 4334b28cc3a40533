defmodule ExServiceMeshRouter.Telemetry do
  @events [
    %{
      event: [:ex_service_mesh_router, :gateway, :start],
      when: "The gateway listens.",
      measurements: [:system_time],
      metadata: [:gateway, :addresses, :workers]
    },
    %{
      event: [:ex_service_mesh_router, :gateway, :stop],
      when: "It does not any more.",
      measurements: [:system_time],
      metadata: [:gateway, :reason]
    },
    %{
      event: [:ex_service_mesh_router, :route, :added],
      when: "A host got a service that listens, for the first time or again, or another one.",
      measurements: [:system_time],
      metadata: [:gateway, :host, :service, :upstreams]
    },
    %{
      event: [:ex_service_mesh_router, :route, :removed],
      when: "A host lost its service, or the service stopped listening.",
      measurements: [:system_time],
      metadata: [:gateway, :host, :service]
    },
    %{
      event: [:ex_service_mesh_router, :route, :conflict],
      when: "Two services claim a host; `service` has it.",
      measurements: [:system_time],
      metadata: [:gateway, :host, :service, :loser]
    },
    %{
      event: [:ex_service_mesh_router, :upstream, :down],
      when: "The first connection to a service that failed, after others had not.",
      measurements: [:count],
      metadata: [:gateway, :service]
    },
    %{
      event: [:ex_service_mesh_router, :upstream, :up],
      when: "The first one after that which succeeded.",
      measurements: [:count],
      metadata: [:gateway, :service]
    },
    %{
      event: [:ex_service_mesh_router, :limit, :reached],
      when:
        "A limit of the configuration was reached, `count` times within a second: the name of a key of `limits`, or `timeouts.head` or `timeouts.idle`.",
      measurements: [:count],
      metadata: [:gateway, :limit]
    },
    %{
      event: [:ex_service_mesh_router, :worker, :start],
      when: "A thread of the data plane begins to serve.",
      measurements: [:system_time],
      metadata: [:gateway, :worker]
    },
    %{
      event: [:ex_service_mesh_router, :worker, :stop],
      when: "It ended because it was told to.",
      measurements: [:duration],
      metadata: [:gateway, :worker]
    },
    %{
      event: [:ex_service_mesh_router, :worker, :exception],
      when: "It ended by itself, and is restarted.",
      measurements: [:duration],
      metadata: [:gateway, :worker, :reason]
    },
    %{
      event: [:ex_service_mesh_router, :request, :stop],
      when: "A request has ended, and is one of the sample.",
      measurements: [
        :duration,
        :first_byte_duration,
        :gateway_duration,
        :request_bytes,
        :response_bytes
      ],
      metadata: [
        :gateway,
        :service,
        :host,
        :method,
        :path,
        :status,
        :http_version,
        :client,
        :user_agent,
        :request_id,
        :trace_id,
        :error,
        :side,
        :reason
      ]
    }
  ]

  @table Enum.map_join(@events, "\n", fn event ->
           names = fn list -> Enum.map_join(list, ", ", &"`#{&1}`") end
           name = inspect(event.event)

           "| `#{name}` | #{event.when} | #{names.(event.measurements)} | #{names.(event.metadata)} |"
         end)

  @moduledoc """
  What the gateway tells by `:telemetry`, in applications that have it.

  | event | when | measurements | metadata |
  | --- | --- | --- | --- |
  #{@table}

  ## Requests

  Requests are off the path of the BEAM, and their events are too: the data plane hands them over in
  batches, some 20 ms later, and only those of the sample that is configured:

      config :ex_service_mesh_router, telemetry: [sample: 0.01]

  The default is none. Counting needs no events: `ExServiceMeshRouter.stats/0` and
  `ExServiceMeshRouter.Prometheus` have every request, at next to no cost, while an event costs a
  message and its handlers for each. Phoenix's own events tell of what the endpoints did.

  When handlers are slower than requests, events are dropped and counted (`records_lost` of
  `:gateway` in the statistics); requests never wait for them.

    * Durations are in native units (`System.convert_time_unit/3`): `duration` from the head of the
      request to the end of the response; `first_byte_duration` is the endpoint's, from the request
      sent to the response head; `gateway_duration` is what the gateway took itself, connecting
      included. The latter two are missing where the endpoint gave no response.
    * `request_bytes` and `response_bytes` are those of the bodies, framing included.
    * `status` is `nil` for a client that was gone before it could be told anything; `service` is
      `nil` for requests that were refused before they had one.
    * `error` is a kind as in `errors` of the statistics and `side` is `:downstream` (the client),
      `:upstream` (the endpoint) or `:gateway`; both are `nil` when all went well.
    * `reason` says what exactly was wrong with a `bad_request` or a `bad_response`, and is otherwise
      `nil`. Clients are told the former and never the latter.
    * `path` has no query.
    * A WebSocket's event is that of its handshake.

  In terms of OpenTelemetry's semantic conventions, `duration` is `http.server.request.duration`, and
  of the metadata `method` is `http.request.method`, `status` is `http.response.status_code`, `path`
  is `url.path`, `host` is `server.address`, `client` is `client.address`, `user_agent` is
  `user_agent.original`, `http_version` is `network.protocol.version`, and `error` is `error.type`.
  """

  @doc "The catalogue above: event, when it is executed, and the keys of its two maps."
  @spec events() :: [
          %{
            event: [atom()],
            when: String.t(),
            measurements: [atom()],
            metadata: [atom()]
          }
        ]
  def events, do: @events
end
