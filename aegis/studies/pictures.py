"""The pictures of one run: utility, epsilon and updates by round, and the predictions on held-out rows by task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aegis.studies.figures import (
    Curve,
    plot_calibration,
    plot_confusion,
    plot_epsilon,
    plot_residuals,
    plot_roc,
    plot_survival,
    plot_updates,
    plot_utility,
)
from aegis.studies.held_out import HeldOut, class_names, observed_survival
from aegis.studies.results import StudyResult, update_norms
from coreason_enclave.datasets import Label
from coreason_enclave.schemas import Task

_SMALL = 0.2
"""The norm's limit is drawn if some update reaches this share of it; a farther line would flatten the curves."""


def draw(folder: Path, result: StudyResult) -> None:
    """Write every picture of the run's task to ``folder``."""
    folder.mkdir(exist_ok=True)
    _draw_utility(folder / "utility.png", result)
    if result.is_private:
        _draw_epsilon(folder / "epsilon.png", result)
    _draw_updates(folder / "updates.png", result)
    if result.predictions is not None:
        _draw_predictions(folder, result, result.predictions)


def names_of(result: StudyResult) -> list[str]:
    """Return the names of the pictures that :func:`draw` writes, in the order of the summary."""
    by_task = {
        Task.BINARY: ["roc.png", "calibration.png", "confusion.png"],
        Task.MULTICLASS: ["confusion.png", "calibration.png"],
        Task.MULTILABEL: ["calibration.png"],
        Task.REGRESSION: ["residuals.png"],
        Task.COUNT: ["residuals.png"],
        Task.SURVIVAL: ["survival.png"],
    }
    return [
        *(["utility.png"] if result.main_measure else []),
        *(["epsilon.png"] if result.is_private else []),
        "updates.png",
        *(by_task[result.task] if result.predictions is not None else []),
    ]


def _title(result: StudyResult) -> str:
    simulated = " (attestation SIMULATED)" if result.is_simulated else ""
    privacy = result.job.privacy
    hostile = f"\n{len(result.attackers)} of the sites under a SIMULATED attacker" if result.attackers else ""
    if not result.is_private:
        return f"{result.name}: no privacy{simulated}{hostile}"
    price = f"epsilon {privacy.target_epsilon:g} at delta {privacy.delta:g} per {privacy.unit}"
    return f"{result.name}: {price}{simulated}{hostile}"


def _rounds(result: StudyResult) -> list[int]:
    return [record.round_number for record in result.history]


def _draw_utility(path: Path, result: StudyResult) -> None:
    measure = result.main_measure
    if measure is None:
        return
    label = "private job" if result.is_private else "job without privacy"
    private = _with_band(
        Curve(label, _rounds(result), result.by_round(result.history, measure)),
        [result.by_round(history, measure) for history in result.repeats],
    )
    twin = None
    if result.twin:
        rounds = [record.round_number for record in result.twin]
        twin = Curve("same job, no privacy", rounds, result.by_round(result.twin, measure))
    references = {name: found[measure].value for name, found in result.references.items() if measure in found}
    plot_utility(path, measure, private, twin=twin, references=references, title=_title(result))


def _with_band(curve: Curve, repeats: Sequence[Sequence[float]]) -> Curve:
    """Return the curve in the band of all repetitions."""
    if not repeats:
        return curve
    every = list(zip(curve.values, *repeats, strict=True))
    return replace(curve, low=[min(values) for values in every], high=[max(values) for values in every])


def _draw_epsilon(path: Path, result: StudyResult) -> None:
    curves = []
    for site in sorted({site for record in result.history for site in record.epsilon}):
        values, spent = [], 0.0
        for record in result.history:  # a round without the site adds nothing
            spent = max(spent, record.epsilon.get(site) or 0.0)
            values.append(spent)
        curves.append(Curve(site, _rounds(result), values))
    if curves:
        plot_epsilon(path, curves, result.job.privacy.target_epsilon or 0.0, title=_title(result))


def _draw_updates(path: Path, result: StudyResult) -> None:
    norms = update_norms(result)
    curves = [Curve(site, _rounds(result), values) for site, values in norms.items()]
    aside = [
        (record.round_number, site) for record in result.history for site in record.admitted if site not in record.used
    ]
    known = [value for values in norms.values() for value in values if not math.isnan(value)]
    limit = result.job.max_update_norm
    near = bool(limit and known and max(known) >= _SMALL * limit)
    title = _title(result) + ("" if near or not limit else f"\nmax_update_norm {limit:g} lies far above")
    plot_updates(path, curves, aside, title=title, limit=limit if near else None)


def _draw_predictions(folder: Path, result: StudyResult, found: HeldOut) -> None:
    title, predicted, labels = f"{result.name}: held-out rows", found.predicted, found.labels
    match result.task:
        case Task.BINARY:
            if "auc" in result.measures:
                area = f"AUC {result.measures['auc'].text()}"
                plot_roc(folder / "roc.png", predicted[:, 1], labels, title=title, area=area)
            plot_calibration(folder / "calibration.png", predicted[:, 1], labels == 1, title=title)
            _draw_confusion(folder / "confusion.png", result.dictionary.label, predicted, labels, title)
        case Task.MULTICLASS:
            _draw_confusion(folder / "confusion.png", result.dictionary.label, predicted, labels, title)
            right = predicted.argmax(axis=1) == labels
            plot_calibration(
                folder / "calibration.png", predicted.max(axis=1), right, title=f"{title}, likeliest class"
            )
        case Task.MULTILABEL:
            plot_calibration(
                folder / "calibration.png", predicted.ravel(), labels.ravel() == 1, title=f"{title}, all labels"
            )
        case Task.REGRESSION | Task.COUNT:
            plot_residuals(folder / "residuals.png", predicted, labels.astype(np.float64), title=title)
        case Task.SURVIVAL:
            cuts = result.dictionary.label.cuts or ()
            mean = [float(value) for value in predicted.mean(axis=0)]
            plot_survival(
                folder / "survival.png", mean, observed_survival(labels, len(mean)).tolist(), cuts, title=title
            )


def _draw_confusion(
    path: Path, label: Label, predicted: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], title: str
) -> None:
    names = class_names(label)
    plot_confusion(path, predicted.argmax(axis=1), labels, names, title=title)
