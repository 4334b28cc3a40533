#!/usr/bin/env python3
"""Measures the gateway beside other proxies, all on one core, in front of one endpoint.

    bench/run.py                                  everything that is installed, about 15 minutes
    bench/run.py --scenarios keepalive-64 --proxies mesh,nginx --rounds 3
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import medians
import proxies
import report
from scenarios import SCENARIOS

PORT = 18100


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = ",".join(s.name for s in SCENARIOS)
    parser.add_argument("--scenarios", default=names, help=f"some of: {names}")
    parser.add_argument("--proxies", default=",".join(proxies.KINDS))
    parser.add_argument("--rounds", type=int, default=5, help="pairs that medians are taken of")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured time of one run")
    parser.add_argument("--out", type=Path, default=proxies.ROOT / "bench/results")
    return parser.parse_args()


def installed(wanted):
    found = []
    for name in wanted:
        if proxies.available(name):
            found.append(name)
        elif name in proxies.INSTALL:
            print(f"without {name}: {proxies.INSTALL[name]}")
    return found


def load(port, scenario, pids, seconds, more=()):
    """Loads what listens on the port. `more`: further words for `mesh_bench load`."""
    mode, *rest = map(str, scenario.load)
    command = [
        "taskset", "-c", proxies.LOAD_CORE, str(proxies.TOOL), "load", mode, str(port), *rest,
        "--seconds", str(seconds), "--pids", ",".join(map(str, pids)), *map(str, more),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        return {"failed": done.stderr.strip()}
    return json.loads(done.stdout)


def contestants(scenario, names):
    """Label -> proxy and its options."""
    if scenario.variants:
        named = scenario.variants.items()
        return {label: (options.get("in", "mesh"), options) for label, options in named}
    options = {"buffer": 256 * 1024} if scenario.unit == "MiB" else {}
    return {name: (name, options) for name in scenario.proxies if name in names}


def measure(scenario, names, backend, work, args, half_of_nginx):
    upstream = backend.address(scenario.upstream)
    entries = list(contestants(scenario, names).items())
    rate = ["--rate", half_of_nginx] if scenario.name == "latency-half" else []
    fresh = scenario.load[0] == "idle"
    running, rounds, replicas = {}, [], []
    try:
        for delay in scenario.replicas:
            replicas.append(proxies.Backend(work, PORT - 2 - len(replicas), delay))
        for _, options in (entry for _, entry in entries if replicas):
            options["upstreams"] = [replica.tcp for replica in replicas]
        if not fresh:
            for i, (label, (name, options)) in enumerate(entries):
                running[label] = proxies.start(name, work, PORT + i, upstream, options)
        for number in range(1 if fresh else args.rounds):
            results = {}
            # Nobody is always first.
            turn = number % max(1, len(entries))
            order = list(enumerate(entries))
            for i, (label, (name, options)) in order[turn:] + order[:turn]:
                if fresh:
                    running[label] = proxies.start(name, work, PORT + i, upstream, options)
                stats = ["--stats", proxies.nodes(work, PORT + i)] if name == "mesh-hop" else []
                pids = running[label].pids()
                results[label] = load(PORT + i, scenario, pids, args.seconds, rate + stats)
                if fresh:
                    running.pop(label).stop()
            if scenario.name == "latency-low":
                results["direct"] = load(int(backend.tcp.split(":")[1]), scenario, [], args.seconds)
            rounds.append(results)
            print(".", end="", flush=True)
    finally:
        for process in [*running.values(), *replicas]:
            process.stop()
    return rounds


def main():
    args = arguments()
    wanted = args.scenarios.split(",")
    names = installed(args.proxies.split(","))
    chosen = [s for s in SCENARIOS if s.name in wanted]
    all_rounds = {}
    with tempfile.TemporaryDirectory(prefix="mesh-bench-", ignore_cleanup_errors=True) as work:
        work = Path(work)
        work.chmod(0o755)
        backend = proxies.Backend(work, PORT - 1)
        grpc_backend = proxies.GrpcBackend(work, PORT - 50)
        half_of_nginx = 10_000
        try:
            for scenario in chosen:
                print(f"\n## {scenario.title} ", end="", flush=True)
                endpoint = grpc_backend if scenario.upstream == "h2c" else backend
                rounds = measure(scenario, names, endpoint, work, args, half_of_nginx)
                print("\n\n" + report.table(scenario, rounds))
                all_rounds[scenario.name] = rounds
                if scenario.name == "keepalive-64" and "nginx" in names:
                    top = medians.median_of(rounds, "nginx", "rate")
                    half_of_nginx = int(top / 2) if top else half_of_nginx
        finally:
            backend.stop()
            grpc_backend.stop()
    report.write(args.out, chosen, all_rounds)


if __name__ == "__main__":
    sys.exit(main())
