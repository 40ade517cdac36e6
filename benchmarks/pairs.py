"""Alternating pairs: the only honest way to time two programs on a noisy machine."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any


def seconds(argv: Sequence[str]) -> float:
    """Wall time of one run of `argv`, which must succeed."""
    begin = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=120)
    return time.perf_counter() - begin


def alternate(ours: Callable[[], float], peer: Callable[[], float], pairs: int) -> dict[str, Any]:
    """Run both in turn, after one unmeasured round; medians, and the median of the per-pair ratios with its range."""
    ours()
    peer()
    samples = [(ours(), peer()) for _ in range(pairs)]
    ratios = sorted(a / b for a, b in samples)
    return {
        "pairs": pairs,
        "ours_median_s": round(statistics.median(a for a, _ in samples), 4),
        "peer_median_s": round(statistics.median(b for _, b in samples), 4),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
        "load_before": os.getloadavg()[0],
    }


def report(name: str, bar: str, result: dict[str, Any], met: bool) -> bool:
    """Print one line for people and one JSON line; True when the bar is met."""
    print(f"{name}: {result['ratio_median']}x (range {result['ratio_range']}), bar {bar}: {'met' if met else 'MISSED'}")
    print(json.dumps({"name": name, "bar": bar, "met": met, "python": sys.version.split()[0], **result}))
    return met
