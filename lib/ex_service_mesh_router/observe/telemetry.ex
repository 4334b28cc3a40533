defmodule ExServiceMeshRouter.Telemetry do
  @events [
    %{
      event: [:ex_service_mesh_router, :gateway, :start],
      when: "The gateway starts to listen.",
      measurements: [:system_time],
      metadata: [:gateway, :addresses, :workers]
    },
    %{
      event: [:ex_service_mesh_router, :gateway, :stop],
      when: "The gateway has stopped.",
      measurements: [:system_time],
      metadata: [:gateway, :reason]
    },
    %{
      event: [:ex_service_mesh_router, :route, :added],
      when: "A host gets a service that listens, or another service or upstream.",
      measurements: [:system_time],
      metadata: [:gateway, :host, :service, :upstreams]
    },
    %{
      event: [:ex_service_mesh_router, :route, :removed],
      when: "A host loses its service, or the service stops listening.",
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
      when: "A connection to a service fails, after the previous one succeeded.",
      measurements: [:count],
      metadata: [:gateway, :service]
    },
    %{
      event: [:ex_service_mesh_router, :upstream, :up],
      when: "A connection to a service succeeds, after the previous one failed.",
      measurements: [:count],
      metadata: [:gateway, :service]
    },
    %{
      event: [:ex_service_mesh_router, :peer, :join],
      when: "Requests can go to the gateway of another node (`mesh`).",
      measurements: [:system_time],
      metadata: [:gateway, :node]
    },
    %{
      event: [:ex_service_mesh_router, :peer, :leave],
      when: "That gateway has stopped, or was not connected for a minute.",
      measurements: [:system_time],
      metadata: [:gateway, :node]
    },
    %{
      event: [:ex_service_mesh_router, :peer, :suspect],
      when: "That gateway does not answer; requests avoid it.",
      measurements: [:count],
      metadata: [:gateway, :node]
    },
    %{
      event: [:ex_service_mesh_router, :peer, :down],
      when: "That gateway has not answered for seconds; requests to it have failed.",
      measurements: [:count],
      metadata: [:gateway, :node]
    },
    %{
      event: [:ex_service_mesh_router, :peer, :up],
      when: "That gateway answers, for the first time or again.",
      measurements: [:count],
      metadata: [:gateway, :node]
    },
    %{
      event: [:ex_service_mesh_router, :peer, :unreachable],
      when: "A connection to that gateway fails.",
      measurements: [:count],
      metadata: [:gateway, :node, :address, :reason]
    },
    %{
      event: [:ex_service_mesh_router, :peer, :refused],
      when: "The mesh port has refused a client that is not a gateway of the cluster.",
      measurements: [:count],
      metadata: [:gateway, :client, :reason]
    },
    %{
      event: [:ex_service_mesh_router, :handover, :start],
      when:
        "Another VM has got the sockets of this one (`role` is `:previous`), or this one has those of another (`:successor`). `peer` is the process id of the other VM.",
      measurements: [:system_time],
      metadata: [:gateway, :role, :peer]
    },
    %{
      event: [:ex_service_mesh_router, :handover, :stop],
      when: "The new VM has the port. `pause` is the time in which neither accepted connections.",
      measurements: [:duration, :pause],
      metadata: [:gateway, :role, :peer]
    },
    %{
      event: [:ex_service_mesh_router, :handover, :exception],
      when: "The new VM has not taken over, and the running one has the port as before.",
      measurements: [:duration],
      metadata: [:gateway, :role, :peer, :reason]
    },
    %{
      event: [:ex_service_mesh_router, :limit, :reached],
      when:
        "A limit was reached, `count` times within a second. `limit` is a key of `limits`, `timeouts.head` or `timeouts.idle`.",
      measurements: [:count],
      metadata: [:gateway, :limit]
    },
    %{
      event: [:ex_service_mesh_router, :worker, :start],
      when: "A thread of the data plane starts to serve.",
      measurements: [:system_time],
      metadata: [:gateway, :worker]
    },
    %{
      event: [:ex_service_mesh_router, :worker, :stop],
      when: "A thread of the data plane stops because the gateway stops.",
      measurements: [:duration],
      metadata: [:gateway, :worker]
    },
    %{
      event: [:ex_service_mesh_router, :worker, :exception],
      when: "A thread of the data plane fails and restarts.",
      measurements: [:duration],
      metadata: [:gateway, :worker, :reason]
    },
    %{
      event: [:ex_service_mesh_router, :request, :stop],
      when: "A request of the sample has ended.",
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
        :reason,
        :hop,
        :grpc_status
      ]
    }
  ]

  @table Enum.map_join(@events, "\n", fn event ->
           names = fn list -> Enum.map_join(list, ", ", &"`#{&1}`") end
           name = inspect(event.event)

           "| `#{name}` | #{event.when} | #{names.(event.measurements)} | #{names.(event.metadata)} |"
         end)

  @moduledoc """
  Lists the `:telemetry` events of the gateway. Applications without `telemetry` get none.

  | event | when | measurements | metadata |
  | --- | --- | --- | --- |
  #{@table}

  ## Requests

  Requests do not pass through the BEAM. The data plane delivers their events in batches, about 20 ms
  later, for a sample of the requests:

      config :ex_service_mesh_router, telemetry: [sample: 0.01]

  The default is no sample. Counting needs no events: `ExServiceMeshRouter.stats/0` and
  `ExServiceMeshRouter.Prometheus` include every request, while each event costs a message and its
  handlers. Phoenix's own events cover the work of the endpoints.

  Requests never wait for handlers. If handlers are slower than requests, events are dropped and
  counted (`records_lost` of `:gateway` in the statistics).

    * Durations are in native units (`System.convert_time_unit/3`): `duration` from the request head to
      the end of the response; `first_byte_duration` from the request sent to the endpoint until its
      response head; `gateway_duration` for the time that the gateway itself took, including
      connecting. The latter two are missing if the endpoint gave no response.
    * `request_bytes` and `response_bytes` are the sizes of the bodies, including framing.
    * `status` is `nil` if the client disconnected before the response; `service` is `nil` for requests
      that were refused before they had a service.
    * `error` is a kind as in `errors` of the statistics, and `side` is `:downstream` (the client),
      `:upstream` (the endpoint) or `:gateway`; both are `nil` for a successful request.
    * `reason` describes a `bad_request` or a `bad_response`, and is otherwise `nil`. Clients get the
      reason of a `bad_request`, never that of a `bad_response`.
    * `hop` is `nil`, `:out` if another node served the request (`mesh`), and `:in` for a request that
      another node's gateway received. Without those with `:in`, each request of a cluster is counted
      once.
    * `grpc_status` is the status of a gRPC call as a number, the endpoint's or the gateway's; `nil` for
      other requests, and for a call whose response broke off.
    * `path` has no query.
    * The event of a WebSocket is that of its handshake.

  In OpenTelemetry's semantic conventions, `duration` is `http.server.request.duration`, and of the
  metadata, `method` is `http.request.method`, `status` is `http.response.status_code`, `path`
  is `url.path`, `host` is `server.address`, `client` is `client.address`, `user_agent` is
  `user_agent.original`, `http_version` is `network.protocol.version`, `grpc_status` is `rpc.grpc.status_code`, and `error` is `error.type`.
  """

  @doc "Returns the table above as maps: the event, when it is executed, and the keys of its two maps."
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
