"""One bar chart for a scenario, as plain SVG that reads on light and dark pages."""

from html import escape

import medians

BAR = 22
GAP = 8
LEFT = 150
WIDTH = 520
RIGHT = 90
OURS = "#d9480f"
OTHERS = "#868e96"


def of(scenario, rounds):
    """CPU for each request; memory for idle connections; p99 where the rate is given."""
    kind = scenario.load[0]
    if kind == "idle":
        key, scale, unit = "resident_each", 1 / 1024, f"KiB for each {scenario.unit}"
    elif kind == "open":
        key, scale, unit = "p99_us", 1, "p99 latency, microseconds"
    else:
        key, scale, unit = "cpu_us", 1, f"CPU microseconds for each {scenario.unit}"
    bars = []
    for label in medians.labels(rounds):
        value = medians.median_of(rounds, label, key)
        if value is not None:
            bars.append((label, value * scale))
    return draw(scenario.title, unit, bars) if bars else None


def draw(title, unit, bars):
    top = 56
    height = top + len(bars) * (BAR + GAP) + 8
    most = max(value for _, value in bars) or 1
    total = LEFT + WIDTH + RIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" '
        f'viewBox="0 0 {total} {height}" font-family="sans-serif" font-size="13" fill="#868e96">',
        f'<text x="{LEFT}" y="20" font-size="15" font-weight="bold">{escape(title)}</text>',
        f'<text x="{LEFT}" y="40">{escape(unit)}, less is better</text>',
    ]
    for i, (label, value) in enumerate(bars):
        y = top + i * (BAR + GAP)
        ours = label.startswith(("mesh", "beam"))
        width = max(1, value / most * WIDTH)
        middle = y + BAR / 2 + 5
        lines += [
            f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" '
            f'fill="{OURS if ours else OTHERS}"/>',
            f'<text x="{LEFT + width + 6:.1f}" y="{middle}">{value:,.1f}</text>',
        ]
    return "\n".join([*lines, "</svg>\n"])
