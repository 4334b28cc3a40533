import Config

# Passes other values on: the gateway reports what it accepts.
port =
  case System.get_env("PORT", "") do
    "" -> 4000
    text -> with {port, ""} <- Integer.parse(text), do: port, else: (_ -> text)
  end

# scripts/demo sets it for several nodes.
case System.get_env("DEMO_NODE") do
  nil ->
    # `server: true`, because the demo has no `mix phx.server`. Its services register themselves, see
    # Demo.Service, so discovery is off. The short drain ends uploads and streams when the demo stops.
    config :ex_service_mesh_router,
      port: port,
      server: true,
      discover: false,
      timeouts: [drain: 500]

  number ->
    number = String.to_integer(number)
    count = "NODES" |> System.fetch_env!() |> String.to_integer()

    config :demo,
      cluster: [
        number: number,
        count: count,
        id: System.fetch_env!("DEMO_ID"),
        cookie: System.fetch_env!("DEMO_COOKIE")
      ],
      gateway: [
        port: if(port == 0, do: 0, else: port + number - 1),
        discover: [only: [:demo]],
        private_listeners: :never,
        dev_domain: nil,
        doctor: false,
        mesh: [ip: :loopback],
        timeouts: [hold: 0, drain: 500]
      ]

    # The roles: billing on the last node, auth on the others.
    if number < count,
      do: config(:demo, Demo.Auth, server: true, url: [host: "auth.localhost"]),
      else: config(:demo, Demo.Billing, server: true, url: [host: "billing.localhost"])
end
