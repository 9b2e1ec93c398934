"""How fast the aggregators are, against a plain mean and against Flower's, all measured in the same run.

    python -m benchmarks.benchmark_aggregation [--quick] [--check] [--out benchmarks/results]

The plain mean is the strictest that NumPy has to offer: float32, over updates that already lie in one matrix.
Flower's kernels are given decoded arrays where its own functions take those (trimmed mean, median); its
distances take the records that it works on. ``aggregate`` is the whole call, screening included. The candidates
of a group take turns, so that a busy machine slows all of them alike; the best turn counts.

Writes ``aggregation.csv``, ``aggregation.md`` and ``aggregation.png``. Targets are for the full size, which no
cache holds; ``--check`` turns a missed one into a non-zero exit.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import matplotlib as mpl
import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import compute_distances

from aegis.aggregation import Contribution, aggregate, columns
from aegis.aggregation.coordinatewise import mean, median, trimmed_mean
from aegis.aggregation.krum import squared_distances
from coreason_enclave.schemas import Aggregator

mpl.use("Agg")
import matplotlib.pyplot as plt

PLAIN_MEAN = "numpy mean of a matrix"
HEADER = [
    "group",
    "candidate",
    "updates",
    "width",
    "best_ms",
    "median_ms",
    "times_plain_mean",
    "faster_than_flower",
]


@dataclass(frozen=True)
class Target:
    group: str
    candidate: str
    against: str
    at_most: float
    """Allowed quotient of the two best times."""


TARGETS = [
    Target("trimmed mean", "aegis kernel", PLAIN_MEAN, 3.0),
    Target("trimmed mean", "aegis kernel", "flower", 1 / 15),
    Target("krum distances", "aegis kernel", "flower", 1 / 30),
]


@dataclass(frozen=True)
class Measured:
    group: str
    candidate: str
    updates: int
    width: int
    best: float
    median: float


def measure(
    group: str, rows: list[np.ndarray], candidates: dict[str, Callable[[], object]], turns: int
) -> list[Measured]:
    """Seconds of each candidate over ``turns`` turns, after one that warms up."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(turns + 1):
        for name, run in candidates.items():
            began = time.perf_counter()
            run()
            if turn:
                taken[name].append(time.perf_counter() - began)
    return [
        Measured(group, name, len(rows), rows[0].size, min(times), float(np.median(times)))
        for name, times in taken.items()
    ]


def gaussian_rows(count: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(20)
    return [rng.standard_normal(width, dtype=np.float32) for _ in range(count)]


def coordinatewise(count: int, width: int, trimmed: int, turns: int) -> list[Measured]:
    """Trimmed mean and median, whole calls of every rule beside them."""
    rows = gaussian_rows(count, width)
    matrix, layout = np.stack(rows), {"w": (width,)}
    view = columns.Columns.of([{"w": row} for row in rows], layout)
    updates = [Contribution(f"site-{i:03}", {"w": row}) for i, row in enumerate(rows)]

    def whole(rule: Aggregator) -> Callable[[], object]:
        f = 0 if rule is Aggregator.MEAN else trimmed
        return lambda: aggregate(updates, rule=rule, num_byzantine=f, layout=layout, max_norm=1e9)

    plain = {PLAIN_MEAN: lambda: matrix.mean(axis=0)}
    trim = plain | {
        "aegis kernel": lambda: trimmed_mean(view, trimmed),
        "aegis aggregate": whole(Aggregator.TRIMMED_MEAN),
        "flower": lambda: trim_mean(np.stack(rows), trimmed / count),
    }
    middle = plain | {
        "aegis kernel": lambda: median(view),
        "aegis aggregate": whole(Aggregator.MEDIAN),
        "flower": lambda: np.median(np.stack(rows), axis=0),
    }
    average = plain | {
        "numpy stack and mean": lambda: np.stack(rows).mean(axis=0),
        "aegis kernel": lambda: mean(view),
        "aegis aggregate": whole(Aggregator.MEAN),
    }
    return [
        *measure("mean", rows, average, turns),
        *measure("trimmed mean", rows, trim, turns),
        *measure("median", rows, middle, turns),
    ]


def krum_distances(count: int, width: int, num_byzantine: int, turns: int) -> list[Measured]:
    """Pairwise distances, and the whole of Krum."""
    rows = gaussian_rows(count, width)
    matrix, layout = np.stack(rows), {"w": (width,)}
    view = columns.Columns.of([{"w": row} for row in rows], layout)
    updates = [Contribution(f"site-{i:03}", {"w": row}) for i, row in enumerate(rows)]
    records = [ArrayRecord({"w": Array(row)}) for row in rows]
    candidates: dict[str, Callable[[], object]] = {
        PLAIN_MEAN: lambda: matrix.mean(axis=0),
        "aegis kernel": lambda: squared_distances(view),
        "aegis aggregate": lambda: aggregate(
            updates, rule=Aggregator.KRUM, num_byzantine=num_byzantine, layout=layout, max_norm=1e9
        ),
        "flower": lambda: compute_distances(records),
    }
    return measure("krum distances", rows, candidates, turns)


FIRST_CALLS = """
import sys, time
import numpy as np
from aegis.aggregation import Contribution, aggregate
from coreason_enclave.schemas import Aggregator
began = time.perf_counter()
updates = [Contribution(str(i), {"w": np.ones(8, np.float32)}) for i in range(5)]
for rule in (Aggregator.TRIMMED_MEAN, Aggregator.KRUM):
    aggregate(updates, rule=rule, num_byzantine=1, layout={"w": (8,)}, max_norm=9.0)
print(time.perf_counter() - began)
"""


def first_calls() -> list[Measured]:
    """Seconds until all four kernels have run once in a new process, with and without a filled cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        seconds = [
            float(subprocess.check_output([sys.executable, "-c", FIRST_CALLS], env=environment)) for _ in range(2)
        ]
    names = ("compiled, then cached on disk", "from the disk cache")
    return [Measured("first calls", name, 5, 8, s, s) for name, s in zip(names, seconds, strict=True)]


def best_of(results: list[Measured], group: str, candidate: str) -> float | None:
    return next((r.best for r in results if (r.group, r.candidate) == (group, candidate)), None)


def table(results: list[Measured]) -> list[list[str]]:
    """Rows under ``HEADER``."""
    rows = []
    for r in results:
        plain, flower = best_of(results, r.group, PLAIN_MEAN), best_of(results, r.group, "flower")
        row = [r.group, r.candidate, str(r.updates), str(r.width), f"{r.best * 1e3:.1f}", f"{r.median * 1e3:.1f}"]
        row.append(f"{r.best / plain:.2f}" if plain else "")
        row.append(f"{flower / r.best:.1f}" if flower else "")
        rows.append(row)
    return rows


def verdicts(results: list[Measured]) -> list[tuple[bool, str]]:
    """Whether each target was met, and the sentence that says so."""
    said = []
    for target in TARGETS:
        ours = best_of(results, target.group, target.candidate)
        theirs = best_of(results, target.group, target.against)
        assert ours is not None
        assert theirs is not None
        met = ours / theirs <= target.at_most
        quotient = f"{ours / theirs:.2f} ×" if target.at_most >= 1 else f"1/{theirs / ours:.0f} of"
        allowed = f"{target.at_most:g} ×" if target.at_most >= 1 else f"1/{1 / target.at_most:.0f}"
        outcome = "met" if met else "MISSED"
        said.append((met, f"{target.group}: {quotient} {target.against} (target {allowed}): {outcome}"))
    return said


def as_markdown(rows: list[list[str]], said: list[tuple[bool, str]]) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "flwr"))
    machine = f"{platform.machine()}, {columns.usable_cores()} cores, Python {platform.python_version()}"
    lines = [
        "# Aggregation",
        "",
        f"{machine}, {packages}. Milliseconds, best and median turn.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|" + "---|" * len(HEADER),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *(f"- {sentence}" for _, sentence in said),
        "",
    ]
    return "\n".join(lines)


def plot(results: list[Measured], path: Path) -> None:
    shown = [r for r in results if r.group != "first calls"]
    labels = [f"{r.group} (n={r.updates}): {r.candidate}" for r in shown]
    colours = ["tab:blue" if r.candidate.startswith("aegis") else "tab:grey" for r in shown]
    figure, axes = plt.subplots(figsize=(9, 0.3 * len(shown) + 1.2), layout="constrained")
    bars = axes.barh(labels, [r.best * 1e3 for r in shown], color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel(f"milliseconds for {shown[0].width:,} values per update (log scale; shorter is better)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def write(results: list[Measured], said: list[tuple[bool, str]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = table(results)
    with (folder / "aggregation.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    (folder / "aggregation.md").write_text(as_markdown(rows, said), encoding="utf-8")
    plot(results, folder / "aggregation.png")


def show(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [HEADER, *rows]) for i in range(len(HEADER))]
    for row in [HEADER, *rows]:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the robust aggregators.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the values and fewer turns; rougher")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results")
    options = parser.parse_args(arguments)
    if options.quick and options.check:
        parser.error("--check needs the full size: leave --quick out")
    width, turns = (100_000, 5) if options.quick else (1_000_000, 7)
    results = [
        *coordinatewise(20, width, 2, turns),
        *krum_distances(50, width, 10, turns if options.quick else 3),
        *first_calls(),
    ]
    said = [] if options.quick else verdicts(results)
    write(results, said, options.out)
    show(table(results))
    for _, sentence in said:
        print(sentence)
    print(f"Written to {options.out}/aggregation.{{csv,md,png}}")
    return 1 if options.check and not all(met for met, _ in said) else 0


if __name__ == "__main__":
    sys.exit(main())
