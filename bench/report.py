"""Tables and files out of the rounds."""

import csv
import json
import platform
import statistics
import time

import charts
from medians import labels, median_of, ratio, values


def cell(value, form="{:.1f}"):
    return "-" if value is None else form.format(value)


def table(scenario, rounds):
    idle = scenario.load[0] == "idle"
    return idle_table(scenario, rounds) if idle else load_table(scenario, rounds)


def load_table(scenario, rounds):
    memory = "most memory MiB" if scenario.load[0] == "grpc" else "memory MiB"
    head = ["", f"{scenario.unit}s/s", f"CPU us/{scenario.unit}", "user", "system", "p50 us",
            "p99 us", "p99.9 us", memory, "first's CPU against it"]  # fmt: skip
    rows = []
    order = labels(rounds)
    first = order[0] if not scenario.variants else list(scenario.variants)[-1]
    for label in order:
        get = lambda key: median_of(rounds, label, key)
        against = ratio(rounds, first, label, "cpu_us")
        resident = get("resident")
        rows.append([
            label,
            cell(get("rate"), "{:,.0f}"),
            cell(get("cpu_us"), "{:.2f}"),
            cell(get("user_us"), "{:.2f}"),
            cell(get("system_us"), "{:.2f}"),
            cell(get("p50_us"), "{:,.0f}"),
            cell(get("p99_us"), "{:,.0f}"),
            cell(get("p999_us"), "{:,.0f}"),
            cell((get("peak") or resident) / 2**20 if resident else None),
            "{:.2f} ({:.2f} to {:.2f})".format(*against) if against else "-",
        ])  # fmt: skip
    return markdown(head, rows) + nodes(scenario, rounds) + troubles(rounds)


def nodes(scenario, rounds):
    """What the nodes of a mesh have counted, by round."""
    lines = []
    for label in labels(rounds):
        found = values(rounds, label, "nodes")
        if not found:
            continue
        reused = sum(n["reused"] for n in found)
        opened = sum(n["opened"] for n in found)
        share = 100 * reused / max(1, reused + opened)
        lines.append(f"\n{label}: {share:.3f} % of {reused + opened:,} requests on pooled connections")
        if len(scenario.replicas) > 1:
            shares = [sorted(n["requests"]) for n in found]
            most = [s[-1] / max(1, s[0]) for s in shares]
            last = [n["requests"][-1] * len(n["requests"]) / sum(n["requests"]) for n in found]
            lines.append(f"\n{label}: most requests to fewest {spread(most)}; the last node got "
                         f"{spread(last)} of its fair share")  # fmt: skip
    return "".join(f"{line}\n" for line in lines)


def spread(found):
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def idle_table(scenario, rounds):
    head = ["", f"KiB for each {scenario.unit}", "heap KiB for each", "memory MiB"]
    rows = []
    for label in labels(rounds):
        get = lambda key: median_of(rounds, label, key)
        scaled = lambda key, by: cell(get(key) / by if get(key) is not None else None)
        rows.append([label, scaled("resident_each", 1024), scaled("anonymous_each", 1024),
                     scaled("resident", 2**20)])  # fmt: skip
    return markdown(head, rows) + troubles(rounds)


def troubles(rounds):
    lines = []
    for label in labels(rounds):
        errors = sum(values(rounds, label, "errors"))
        failed = [r[label]["failed"] for r in rounds if "failed" in r.get(label, {})]
        if errors:
            last = [e for e in values(rounds, label, "last_error") if e]
            lines.append(f"\n{label}: {errors} errors, the last: {last[-1]}")
        if failed:
            lines.append(f"\n{label}: failed {len(failed)} of {len(rounds)} times: {failed[-1]}")
    return "".join(f"{line}\n" for line in lines)


def markdown(head, rows):
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write(out, scenarios, all_rounds):
    out.mkdir(parents=True, exist_ok=True)
    (out / "rounds.json").write_text(json.dumps(all_rounds, indent=1) + "\n")
    machine = f"{platform.system()} {platform.release()}, {time.strftime('%Y-%m-%d')}"
    parts = [f"# Results\n\n{machine}. Medians of the rounds; ratios are taken within a round.\n"]
    with open(out / "results.csv", "w", newline="") as file:
        rows = csv.writer(file)
        keys = ["rate", "cpu_us", "user_us", "system_us", "p50_us", "p99_us", "p999_us",
                "resident", "peak", "resident_each", "anonymous_each"]  # fmt: skip
        rows.writerow(["scenario", "proxy", *keys])
        for scenario in scenarios:
            rounds = all_rounds[scenario.name]
            parts.append(f"## {scenario.title}\n\n{table(scenario, rounds)}")
            for label in labels(rounds):
                rows.writerow([scenario.name, label] + [median_of(rounds, label, k) for k in keys])
            chart = charts.of(scenario, rounds)
            if chart:
                (out / f"{scenario.name}.svg").write_text(chart)
    (out / "results.md").write_text("\n".join(parts))
