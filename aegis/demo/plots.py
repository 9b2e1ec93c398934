"""The demonstration's plots: utility over rounds, and epsilon at each site."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aegis.stores import RoundRecord

History = Sequence[RoundRecord]

_DP, _TWIN, _REPEAT = "#0b6e4f", "#c8553d", "#7fb8a2"


def plot_utility(
    path: Path, *, private: History, twin: History, repeats: Sequence[History], central: float, title: str
) -> None:
    """Plot AUC on the public evaluation set over rounds: private job, repetitions, non-private twin, central model."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120, layout="constrained")
    for index, history in enumerate(repeats):
        label = f"repeated with new secret keys ({len(repeats)} times)" if index == 0 else None
        axes.plot(_rounds(history), _metric(history, "auc"), color=_REPEAT, linewidth=1, label=label)
    axes.plot(
        _rounds(twin), _metric(twin, "auc"), color=_TWIN, linestyle="--", marker="s", ms=4, label="same job, no privacy"
    )
    axes.plot(_rounds(private), _metric(private, "auc"), color=_DP, marker="o", ms=5, label="private job")
    axes.axhline(central, color="#555555", linestyle=":", label=f"central, no privacy ({central:.3f})")
    axes.set(xlabel="round", ylabel="AUC on the public evaluation set", title=title)
    axes.set_xticks(_ticks(_rounds(private)))
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)
    plt.close(figure)


def plot_epsilon(path: Path, *, private: History, target: float, title: str) -> None:
    """Plot each site's epsilon over rounds against the job's cap. Sites with equal values share a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120, layout="constrained")
    for sites, values in _grouped(private).items():
        axes.plot(_rounds(private), values, marker="o", ms=4, label=", ".join(sites))
    axes.axhline(target, color="#c8553d", linestyle="--", label=f"cap of the job ({target:g})")
    axes.set(xlabel="round", ylabel="epsilon spent in this job", title=title)
    axes.set_xticks(_ticks(_rounds(private)))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
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


def _ticks(rounds: list[int]) -> list[int]:
    return rounds[:: max(1, len(rounds) // 10)]
