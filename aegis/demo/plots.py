"""The demonstration's plots: utility over rounds, and epsilon at each site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aegis.stores import RoundRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

History = Sequence[RoundRecord]

_DP, _TWIN, _REPEAT = "#0b6e4f", "#c8553d", "#7fb8a2"


def plot_utility(
    path: Path, *, private: History, twin: History, repeats: Sequence[History], central: float, title: str
) -> None:
    """Plot AUC on the public evaluation set over rounds: private job, repetitions, non-private twin, central model."""
    with _figure(path, _rounds(private), "AUC on the public evaluation set", title) as axes:
        for index, history in enumerate(repeats):
            label = f"repeated with new keys ({len(repeats)} times)" if index == 0 else None
            axes.plot(_rounds(history), _metric(history, "auc"), color=_REPEAT, linewidth=1, label=label)
        axes.plot(_rounds(twin), _metric(twin, "auc"), "s--", color=_TWIN, ms=4, label="same job, no privacy")
        axes.plot(_rounds(private), _metric(private, "auc"), color=_DP, marker="o", ms=5, label="private job")
        axes.axhline(central, color="#555555", linestyle=":", label=f"central, no privacy ({central:.3f})")
        axes.legend(loc="lower right", frameon=False)


def plot_epsilon(path: Path, *, private: History, target: float, title: str) -> None:
    """Plot each site's epsilon over rounds against the job's cap. Sites with equal values share a line."""
    with _figure(path, _rounds(private), "epsilon spent in this job", title) as axes:
        for sites, values in _grouped(private).items():
            axes.plot(_rounds(private), values, marker="o", ms=4, label=", ".join(sites))
        axes.axhline(target, color="#c8553d", linestyle="--", label=f"cap of the job ({target:g})")
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right", frameon=False, fontsize=8)


@contextmanager
def _figure(path: Path, rounds: list[int], ylabel: str, title: str) -> Iterator[Axes]:
    """Yield axes over the rounds, and save the figure to ``path``."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes.set(xlabel="round", ylabel=ylabel, title=title)
    axes.grid(alpha=0.25)
    yield axes
    axes.set_xticks(rounds[:: max(1, len(rounds) // 10)])
    figure.savefig(path)
    plt.close(figure)


def _grouped(history: History) -> dict[tuple[str, ...], tuple[float, ...]]:
    sites = sorted({site for record in history for site in record.epsilon})
    curves: dict[tuple[float, ...], list[str]] = {}
    for site in sites:
        curves.setdefault(tuple(record.epsilon.get(site) or 0.0 for record in history), []).append(site)
    return {tuple(names): values for values, names in curves.items()}


def _rounds(history: History) -> list[int]:
    return [record.round_number for record in history]


def _metric(history: History, name: str) -> list[float]:
    return [record.metrics.get(name, float("nan")) for record in history]
