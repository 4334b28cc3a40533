"""What is measured: the load, and what the proxies are given to do."""

ALL = ("mesh", "before", "beam", "relay", "hyper", "nginx", "haproxy", "caddy", "envoy")
# And what no gateway can do without, nothing else: one answer in one piece, over TCP.
WITH_LEAST = (*ALL[:4], "least", *ALL[4:])
# A request that passes two gateways, beside one gateway.
HOP = ("mesh-hop", "mesh", "before", "nginx-hop", "nginx")
# Calls of gRPC, to an endpoint that speaks HTTP/2.
GRPC = ("mesh", "before", "beam", "relay", "nginx", "haproxy", "caddy", "envoy")


class Scenario:
    def __init__(self, name, title, load, upstream="tcp", proxies=ALL, variants=None, unit="request",
                 replicas=()):  # fmt: skip
        self.name = name
        self.title = title
        # Words for `mesh_bench load`, the port left out.
        self.load = load
        self.upstream = upstream
        self.proxies = proxies
        # The gateway against itself: label -> its options, and where it runs (`in`), if not alone.
        self.variants = variants
        self.unit = unit
        # Endpoints, each behind a gateway of its own: how many milliseconds they take to answer.
        self.replicas = replicas


def closed(connections, *more):
    return ["closed", "--connections", connections, *more]


def grpc(name, title, *more, unit="call"):
    return Scenario(name, title, ["grpc", *more], upstream="h2c", proxies=GRPC, unit=unit)


# Everything that can be switched on but a sample, which is chosen, and the log.
SEEING = "request_id: true, trace: :start, server_timing: true, metrics: [port: 0]"
LOG = 'access_log: [format: :combined, to: "{work}/access.log"]'

SCENARIOS = [
    Scenario("keepalive-64", "1 KiB answers, 64 connections, keep-alive", closed(64), proxies=WITH_LEAST),
    Scenario("keepalive-1", "1 KiB answers, 1 connection, keep-alive", closed(1)),
    Scenario("keepalive-2000", "1 KiB answers, 2,000 connections, keep-alive", closed(2000, "--warmup", 1.5)),
    Scenario("unix-64", "1 KiB answers, 64 connections, Unix socket to the endpoint", closed(64), upstream="unix"),
    Scenario("body-64k", "64 KiB answers, 64 connections", closed(64, "--answer", 65536)),
    Scenario("body-1m", "1 MiB answers, 16 connections", closed(16, "--answer", 1 << 20), unit="MiB"),
    Scenario("upload-1m", "1 MiB uploads, 16 connections", closed(16, "--upload", 1 << 20), unit="MiB"),
    Scenario("reconnect", "1 KiB answers, new connection for each", closed(64, "--reconnect"), proxies=WITH_LEAST),
    Scenario(
        "routes",
        "100,000 routes against 10",
        closed(64),
        variants={"mesh, 10 routes": {"routes": 10}, "mesh, 100,000 routes": {"routes": 100_000}},
    ),
    Scenario(
        "swaps",
        "Table of 1,000 routes replaced 10 times a second",
        closed(64),
        variants={
            "mesh, no swaps": {"routes": 1000},
            "mesh, 10 swaps/s": {"routes": 1000, "swaps": 10},
        },
    ),
    Scenario(
        "observed",
        "What seeing costs, in a BEAM: 1 KiB answers, 64 connections",
        closed(64),
        variants={
            "all on": {"in": "beam", "config": f"[{SEEING}, telemetry: [sample: 1.0]]"},
            "all on, access log": {"in": "beam", "config": f"[{SEEING}, telemetry: [sample: 0.01], {LOG}]"},
            "a sample of 1 %": {"in": "beam", "config": f"[{SEEING}, telemetry: [sample: 0.01]]"},
            "all off": {"in": "beam", "config": "[request_id: false]"},
        },
    ),
    Scenario(
        "tunnels-1000",
        "WebSocket echo of 128-byte messages, 1,000 tunnels",
        ["tunnels", "--connections", 1000, "--warmup", 1.5],
        unit="message",
    ),
    Scenario("hop-64", "Two gateways: 1 KiB answers, 64 connections", closed(64), proxies=HOP),
    Scenario("hop-1", "Two gateways: 1 KiB answers, one at a time", closed(1), proxies=HOP),
    Scenario("hop-answers-64k", "Two gateways: 64 KiB answers", closed(64, "--answer", 65536), proxies=HOP),
    Scenario("hop-answers-1m", "Two gateways: 1 MiB answers", closed(16, "--answer", 1 << 20), proxies=HOP, unit="MiB"),
    Scenario("hop-uploads-64k", "Two gateways: 64 KiB uploads", closed(64, "--upload", 65536), proxies=HOP),
    Scenario("hop-uploads-1m", "Two gateways: 1 MiB uploads", closed(16, "--upload", 1 << 20), proxies=HOP, unit="MiB"),
    Scenario(
        "hop-tunnels",
        "Two gateways: WebSocket echo of 128-byte messages, 250 tunnels",
        # Every tunnel begins with a TLS handshake of its own, all at once.
        ["tunnels", "--connections", 250, "--warmup", 1.5],
        proxies=HOP,
        unit="message",
    ),
    Scenario(
        "hop-idle-tunnels",
        "Two gateways: 4,000 idle tunnels",
        ["idle", "--connections", 4000, "--tunnels"],
        proxies=HOP,
        unit="tunnel",
    ),
    Scenario(
        "hop-equal",
        "Three nodes behind one, endpoints that take 10 ms",
        closed(64),
        proxies=HOP[:1],
        replicas=(10, 10, 10),
    ),
    Scenario(
        "hop-slow",
        "Three nodes behind one, endpoints that take 10 ms, 10 ms and 30 ms",
        closed(64),
        proxies=HOP[:1],
        replicas=(10, 10, 30),
    ),
    grpc("grpc-64", "gRPC: 1 KiB calls, 1 connection with 64 streams"),
    grpc("grpc-8x8", "gRPC: 1 KiB calls, 8 connections with 8 streams", "--connections", 8, "--streams", 8),
    grpc("grpc-1", "gRPC: 1 KiB calls, one at a time", "--streams", 1),
    grpc("grpc-answers-1k", "gRPC: calls with 1,000 answers of 1 KiB, 16 streams",
         "--streams", 16, "--answers", 1000, unit="message"),  # fmt: skip
    grpc("grpc-answers-1m", "gRPC: calls with 16 answers of 1 MiB, 4 streams",
         "--streams", 4, "--answers", 16, "--answer", 1 << 20, unit="MiB"),  # fmt: skip
    grpc("grpc-echo", "gRPC: echo of 1 KiB messages, 1 connection with 64 calls", "--echo", unit="message"),
    grpc("grpc-down-1g", "gRPC: one call with 1,024 answers of 1 MiB",
         "--streams", 1, "--answers", 1024, "--answer", 1 << 20, "--requests", 1, "--warmup", 0, unit="MiB"),  # fmt: skip
    grpc("grpc-up-1g", "gRPC: one call with 1,024 requests of 1 MiB",
         "--streams", 1, "--messages", 1024, "--message", 1 << 20, "--requests", 1, "--warmup", 0, unit="MiB"),  # fmt: skip
    Scenario("latency-low", "Latency at 200 requests/s on one connection", ["open", "--connections", 1, "--rate", 200]),
    Scenario("latency-half", "Latency at 64 connections, half of nginx's top rate", ["open", "--connections", 64]),
    Scenario("idle-clients", "4,000 idle keep-alive clients", ["idle", "--connections", 4000], unit="connection"),
    Scenario(
        "idle-tunnels",
        "4,000 idle tunnels",
        ["idle", "--connections", 4000, "--tunnels"],
        unit="tunnel",
    ),
]
