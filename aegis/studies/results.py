"""The results of one run of a study, read from its folder: the data behind summary, model card and pictures.

The same records give the same results, so a crash before the end costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aegis.runs import RunFolder
from aegis.stores import RoundRecord
from aegis.studies.held_out import HeldOut, Interval, held_out, scale_of
from aegis.studies.site_accounts import SiteAccount, accounts_of
from aegis.studies.study import DATASET, DICTIONARY, SUMMARY, Study
from coreason_enclave.datasets import DataDictionary
from coreason_enclave.models import task_of
from coreason_enclave.schemas import FederationJob, Mechanism, Task
from coreason_enclave.wire import decode_arrays

MODEL_CARD, PLOTS, TWIN = "model_card.md", "plots", "twin"
_MAX_UPDATE_BYTES = 1 << 30

MAIN_MEASURES = {
    Task.BINARY: ("auc", "accuracy"),
    Task.MULTICLASS: ("accuracy",),
    Task.MULTILABEL: ("auc", "accuracy"),
    Task.REGRESSION: ("rmse",),
    Task.COUNT: ("deviance",),
    Task.SURVIVAL: ("concordance", "loss"),
}
"""The measure to quote first for each task; the second where the labels do not define the first."""

_IN_LABEL_UNIT = frozenset({"rmse", "mae"})


@dataclass(frozen=True)
class StudyResult:
    """The data behind summary, model card and pictures of one finished run.

    Attributes:
        name: the study's name and the run's number.
        job: as ordered, every privacy value explicit.
        history, twin: rounds of the job, and of the same job without privacy; no rounds if there is no baseline.
        no_twin: why there is no baseline.
        accounts: each site's price.
        predictions, measures: of the released model on the held-out set; None and no measures without such a set.
        outcome, config, dataset: the run folder's documents.
        repeats: rounds of each repetition on new simulated sites.
        references: measures of other models on the held-out rows, by the model's name.
        notes, further_limits: sentences of the study's owner for the summary.
    """

    name: str
    run: RunFolder
    job: FederationJob
    dictionary: DataDictionary
    history: Sequence[RoundRecord]
    twin: Sequence[RoundRecord]
    no_twin: str | None
    accounts: Sequence[SiteAccount]
    predictions: HeldOut | None
    measures: Mapping[str, Interval]
    outcome: Mapping[str, Any]
    config: Mapping[str, Any]
    dataset: Mapping[str, Any]
    repeats: Sequence[Sequence[RoundRecord]] = ()
    references: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    further_limits: Sequence[str] = ()

    @property
    def task(self) -> Task:
        """The kind of prediction."""
        return task_of(self.job.model_arch, self.job.task).kind

    @property
    def is_private(self) -> bool:
        """Tell whether the job gives a guarantee at each site."""
        return self.job.privacy.mechanism is not Mechanism.NON_PRIVATE

    @property
    def is_simulated(self) -> bool:
        """Tell whether attestation is simulated."""
        return bool(self.config["attestation"] == "simulated")

    @property
    def attackers(self) -> list[str]:
        """The sites under a simulated attacker's control."""
        return sorted(self.config["participants"])[: int(self.config["options"]["simulated_attackers"])]

    @property
    def is_seeded(self) -> bool:
        """Tell whether sampling and noise were injected from a seed, which voids every epsilon."""
        return self.config["options"]["unsafe_seed"] is not None

    @property
    def main_measure(self) -> str | None:
        """The measure to quote first; None without a held-out set."""
        return next((name for name in MAIN_MEASURES[self.task] if name in self.measures), None)

    def epsilon(self) -> float | None:
        """Return the largest epsilon that any site spent in this job; None without a guarantee."""
        spent = [each.spent for each in self.accounts if each.spent is not None]
        return max(spent, default=None)

    def by_round(self, history: Sequence[RoundRecord], measure: str) -> list[float]:
        """Return a measure by round in the label's own unit; NaN where a round has none."""
        factor = scale_of(self.dictionary.label) if measure in _IN_LABEL_UNIT else 1.0
        return [factor * record.metrics.get(measure, math.nan) for record in history]

    def without_privacy(self, measure: str) -> float | None:
        """Return the baseline's measure after its last round; None without a baseline."""
        value = self.by_round(self.twin, measure)[-1] if self.twin else math.nan
        return None if math.isnan(value) else value

    def of_runs(self, measure: str) -> list[float]:
        """Return a measure after the last round of the run and of each repetition, in the label's own unit."""
        return [self.by_round(history, measure)[-1] for history in (self.history, *self.repeats)]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, for scripts (JSON types)."""
        return {
            "run": str(self.run.path),
            "name": self.name,
            "job_id": self.job.job_id,
            "task": self.task.value,
            "model": self.outcome["model"],
            "measures": {name: vars(each) for name, each in self.measures.items()},
            "without_privacy": {name: self.without_privacy(name) for name in self.measures},
            "no_baseline": self.no_twin,
            "of_runs": {name: self.of_runs(name) for name in self.measures if name in self.history[-1].metrics},
            "references": {
                model: {name: vars(each) for name, each in measures.items()}
                for model, measures in self.references.items()
            },
            "epsilon": self.epsilon(),
            "delta": self.job.privacy.delta if self.is_private else None,
            "unit": str(self.job.privacy.unit),
            "sites": {each.site: vars(each) for each in self.accounts},
            "federation_epsilon": self.outcome["federation_epsilon"],
            "provenance": self.outcome["provenance"],
            "attestation": self.config["attestation"],
            "simulated_attackers": self.attackers,
            "unsafe_seed": self.config["options"]["unsafe_seed"],
            "summary": str(self.run.path / SUMMARY),
        }


def collect(study: Study, run: RunFolder, *, no_twin: str | None) -> StudyResult:
    """Read a finished run's results from its folder.

    Raises:
        AegisError: a record is missing or damaged.
        DatasetRejected: the run's ``dictionary.toml`` cannot be used.
    """
    job, dictionary = run.job(), DataDictionary.read(run.path / DICTIONARY)
    history = run.state().history
    twin = RunFolder(run.path / TWIN)
    predictions = held_out(run, dictionary, study.held_out_rows)
    return StudyResult(
        name=f"{job.job_id.rpartition('-')[0]}, run {run.path.name}",
        run=run,
        job=job,
        dictionary=dictionary,
        history=history,
        twin=() if no_twin is not None else twin.state().history,
        no_twin=no_twin,
        accounts=accounts_of(run, history[-1]),
        predictions=predictions,
        measures={} if predictions is None else predictions.measures(),
        outcome=run.read_json("outcome.json"),
        config=run.read_json("config.json"),
        dataset=run.read_json(DATASET),
    )


def update_norms(result: StudyResult) -> dict[str, list[float]]:
    """Return the L2 norm of each site's admitted update by round; NaN where a site's arrays are not kept."""
    updates = result.run.path / "state" / "updates"
    sites = sorted({site for record in result.history for site in record.steps})
    return {site: [_norm(updates, record.envelopes.get(site)) for record in result.history] for site in sites}


def _norm(updates: Path, envelope: str | None) -> float:
    if envelope is None:
        return math.nan
    arrays = updates / f"{envelope}.safetensors"
    if not arrays.exists():  # the coordinator forgets whole updates of a job with client-level privacy
        return math.nan
    found = decode_arrays(arrays.read_bytes(), limit=_MAX_UPDATE_BYTES)
    return float(np.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in found.values())))
