"""Pictures of a study: utility, privacy and updates by round, and what a model predicts on public rows.

Every figure keeps its legend beside the curves. Axes that a measure bounds keep these bounds in every run, so that two
runs can be compared by eye. A history of a single round becomes a table: a lone dot shows nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DP, _TWIN, _REPEAT, _CAP, _GREY = "#0b6e4f", "#c8553d", "#7fb8a2", "#c8553d", "#555555"

_BOUNDED = {"auc": (0.0, 1.0), "accuracy": (0.0, 1.0), "concordance": (0.0, 1.0)}
_CHANCE = {"auc": 0.5, "concordance": 0.5}

_TITLE_WIDTH, _LABEL_WIDTH = 110, 34
"""Characters in a line."""

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A measure by round.

    Attributes:
        rounds, values: of equal length; NaN where a round has no value.
        low, high: the band of repeated runs around ``values``, or None.
    """

    label: str
    rounds: Sequence[int]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def plot_utility(
    path: Path,
    metric: str,
    private: Curve,
    *,
    title: str,
    twin: Curve | None = None,
    references: Mapping[str, float] = {},
) -> None:
    """Plot a measure on the public evaluation set by round, against the same job without privacy and fixed values."""
    if len(private.rounds) == 1:
        rows = [(private.label, private.values[-1]), *([(twin.label, twin.values[-1])] if twin else [])]
        _table(path, title, metric, [*rows, *references.items()])
        return
    with _figure(path, "round", f"{metric} on the public evaluation set", title) as axes:
        _draw(axes, private, _DP, "o-")
        if twin is not None:
            _draw(axes, twin, _TWIN, "s--")
        for label, value in references.items():
            axes.axhline(value, color=_GREY, linestyle=":", label=f"{label} ({value:.3f})")
        if metric in _CHANCE:
            axes.axhline(_CHANCE[metric], color=_GREY, linewidth=0.8, label="chance")
        if metric in _BOUNDED:
            axes.set_ylim(*_BOUNDED[metric])
        _whole_rounds(axes, private.rounds)


def plot_runs(path: Path, metric: str, curves: Sequence[Curve], *, title: str) -> None:
    """Plot a measure on the public evaluation set by round, one curve a run."""
    if all(len(curve.rounds) == 1 for curve in curves):
        _table(path, title, metric, [(curve.label, curve.values[-1]) for curve in curves])
        return
    with _figure(path, "round", f"{metric} on the public evaluation set", title) as axes:
        for number, curve in enumerate(curves):
            axes.plot(curve.rounds, curve.values, "o-", markersize=4, color=f"C{number}", label=curve.label)
        if metric in _CHANCE:
            axes.axhline(_CHANCE[metric], color=_GREY, linewidth=0.8, label="chance")
        if metric in _BOUNDED:
            axes.set_ylim(*_BOUNDED[metric])
        _whole_rounds(axes, max((curve.rounds for curve in curves), key=len))


def plot_epsilon(path: Path, spent: Sequence[Curve], cap: float, *, title: str) -> None:
    """Plot each site's epsilon by round against the job's cap; sites with equal values share a line."""
    with _figure(path, "round", "epsilon spent in this job", title) as axes:
        merged: dict[tuple[float, ...], list[str]] = {}
        for curve in spent:
            merged.setdefault(tuple(curve.values), []).append(curve.label)
        for number, (values, labels) in enumerate(merged.items()):
            axes.plot(spent[0].rounds, values, "o-", markersize=4, color=f"C{number}", label=", ".join(labels))
        axes.axhline(cap, color=_CAP, linestyle="--", label=f"cap of the job ({cap:g})")
        axes.set_ylim(0, 1.08 * max(cap, *(max(curve.values) for curve in spent)))
        _whole_rounds(axes, spent[0].rounds)


def plot_updates(
    path: Path,
    norms: Sequence[Curve],
    quarantined: Sequence[tuple[int, str]],
    *,
    title: str,
    limit: float | None = None,
) -> None:
    """Plot the norm of each site's update by round, and mark each update that was set aside.

    Args:
        norms: one curve a site; NaN where a round has no update of the site.
        quarantined: round and site of each update that was set aside.
    """
    with _figure(path, "round", "norm of the update", title) as axes:
        for number, curve in enumerate(norms):
            axes.plot(curve.rounds, curve.values, "o-", markersize=4, color=f"C{number}", label=curve.label)
            at = [index for index, when in enumerate(curve.rounds) if (when, curve.label) in quarantined]
            if at:
                where = [curve.rounds[index] for index in at], [curve.values[index] for index in at]
                axes.plot(*where, "x", markersize=10, markeredgewidth=2, color=_CAP, label=f"{curve.label}: set aside")
        if limit is not None:
            axes.axhline(limit, color=_CAP, linestyle="--", label=f"max_update_norm ({limit:g})")
        axes.set_ylim(bottom=0)
        _whole_rounds(axes, norms[0].rounds)


def plot_roc(path: Path, scores: _Float64, labels: npt.NDArray[np.int64], *, title: str, area: str) -> None:
    """Plot the ROC curve of scores (n,) for labels 0 and 1; ``area`` is the text for the legend."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # one point for equal scores
    hits, misses = np.cumsum(labels[order] == 1)[ends], np.cumsum(labels[order] == 0)[ends]
    with _figure(path, "false positive rate", "true positive rate", title, square=True) as axes:
        axes.plot(
            np.append(0, misses / max(misses[-1], 1)), np.append(0, hits / max(hits[-1], 1)), color=_DP, label=area
        )
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, label="chance")
        axes.set(xlim=(0, 1), ylim=(0, 1))


def plot_calibration(
    path: Path, chances: _Float64, outcomes: npt.NDArray[np.bool_], *, title: str, bins: int = 10
) -> None:
    """Plot the share of outcomes against the predicted chance, in bins of equally many rows."""
    groups = [part for part in np.array_split(np.argsort(chances, kind="stable"), bins) if len(part)]
    with _figure(path, "predicted", "observed", title, square=True) as axes:
        means = [float(chances[part].mean()) for part in groups], [float(outcomes[part].mean()) for part in groups]
        axes.plot(*means, "o-", color=_DP, clip_on=False, zorder=3, label=f"{len(groups)} groups of equally many rows")
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, label="calibrated")
        axes.set(xlim=(0, 1), ylim=(0, 1))


def plot_confusion(
    path: Path, predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], names: Sequence[str], *, title: str
) -> None:
    """Plot how many rows of each class (rows) were predicted as each class (columns)."""
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with _figure(path, "predicted", "label", title, square=True, legend=False) as axes:
        axes.imshow(shares, cmap="Greens", vmin=0, vmax=1)
        axes.grid(visible=False)
        axes.set_xticks(range(len(names)), names, rotation=45 if len(names) > 4 else 0)
        axes.set_yticks(range(len(names)), names)
        for (row, column), count in np.ndenumerate(counts):
            axes.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.6 else "black",
            )


def plot_residuals(path: Path, predicted: _Float64, labels: _Float64, *, title: str, unit: str = "") -> None:
    """Plot prediction minus label over the prediction, in the label's own unit."""
    suffix = f" ({unit})" if unit else ""
    with _figure(path, f"predicted{suffix}", f"predicted - label{suffix}", title, legend=False) as axes:
        axes.plot(predicted, predicted - labels, ".", color=_DP, alpha=0.5)
        axes.axhline(0, color=_GREY, linewidth=0.8)


def plot_survival(
    path: Path, mean: Sequence[float], observed: Sequence[float], cuts: Sequence[float], *, title: str
) -> None:
    """Plot the mean predicted chance to live past each cut against the Kaplan-Meier estimate on the same rows."""
    times = [0.0, *cuts]
    with _figure(path, "time", "share without the event", title) as axes:
        axes.plot(times, [1.0, *observed], "s--", color=_GREY, label="observed (Kaplan-Meier)")
        axes.plot(times, [1.0, *mean], "o-", color=_DP, label="mean prediction")
        axes.set_ylim(0, 1.02)


@contextmanager
def _figure(
    path: Path, xlabel: str, ylabel: str, title: str, *, square: bool = False, legend: bool = True
) -> Iterator[Axes]:
    """Yield axes, put the legend beside them, and save the figure to ``path``."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5) if square else (9, 4.5), dpi=120, layout="constrained")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    figure.suptitle(_wrapped(title, _TITLE_WIDTH), x=0.01, ha="left", fontsize=10)
    axes.grid(alpha=0.25)
    if square:
        axes.set_aspect("equal")
    yield axes
    if legend:
        handles, labels = axes.get_legend_handles_labels()
        wrapped = [_wrapped(label, _LABEL_WIDTH) for label in labels]
        axes.legend(handles, wrapped, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8)
    figure.savefig(path)
    plt.close(figure)


def _wrapped(text: str, width: int) -> str:
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, width))


def _draw(axes: Axes, curve: Curve, color: str, form: str) -> None:
    axes.plot(curve.rounds, curve.values, form, markersize=4, color=color, label=curve.label)
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.rounds, curve.low, curve.high, color=_REPEAT, alpha=0.35, label="repeated runs")


def _whole_rounds(axes: Axes, rounds: Sequence[int]) -> None:
    axes.set_xticks(list(rounds)[:: max(1, len(rounds) // 10)])


def _table(path: Path, title: str, metric: str, rows: Sequence[tuple[str, Any]]) -> None:
    with _figure(path, "", "", title, legend=False) as axes:
        axes.axis("off")
        table = axes.table(
            [[label, f"{value:.4f}"] for label, value in rows], colLabels=["after one round", metric], loc="center"
        )
        table.scale(1, 1.6)
