"""Numbers out of the rounds: medians, and ratios pair by pair."""

import statistics


def values(rounds, label, key):
    found = [r[label][key] for r in rounds if label in r and key in r[label]]
    return [v for v in found if v is not None]


def median_of(rounds, label, key):
    found = values(rounds, label, key)
    return statistics.median(found) if found else None


def ratio(rounds, label, reference, key):
    """Median, lowest and highest of the ratios within each round."""
    pairs = [
        r[label][key] / r[reference][key]
        for r in rounds
        if r.get(label, {}).get(key) and r.get(reference, {}).get(key)
    ]
    if not pairs:
        return None
    return statistics.median(pairs), min(pairs), max(pairs)


def labels(rounds):
    seen = {}
    for round_ in rounds:
        seen.update(dict.fromkeys(round_))
    return list(seen)
